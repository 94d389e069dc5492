//! A coupling facility without a disk: what the others are measured against, and what simulations and tests run on.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Change, Compare, Key, Malformed, Outcome, Read, Request};

/// All records, in memory. A clone is a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    records: BTreeMap<Key, Vec<u8>>,
    revision: u64,
}

impl Store {
    /// Carries a transaction out.
    ///
    /// # Errors
    /// [`Malformed`], as every facility says it.
    pub fn execute(&mut self, request: &Request) -> Result<Outcome, Malformed> {
        request.check()?;
        let is_committed = request.compare.iter().all(|compare| self.holds(compare));
        if is_committed && !request.change.is_empty() {
            request.change.iter().for_each(|change| self.make(change));
            self.revision += 1;
        }
        let records = request.read.iter().flat_map(|read| self.read(read)).collect();
        Ok(Outcome { is_committed, records, revision: self.revision })
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.records.contains_key(key),
            Compare::Present(key) => self.records.contains_key(key),
            Compare::Equals(key, value) => self.records.get(key) == Some(value),
        }
    }

    fn make(&mut self, change: &Change) {
        match change {
            Change::Put(key, value) => _ = self.records.insert(key.clone(), value.clone()),
            Change::Delete(key) => _ = self.records.remove(key),
            Change::DeletePrefix(prefix) => self.records.retain(|key, _| !key.starts_with(prefix.as_str())),
        }
    }

    fn read(&self, read: &Read) -> Vec<(Key, Vec<u8>)> {
        match read {
            Read::Record(key) => self.records.get_key_value(key).map(copy).into_iter().collect(),
            Read::Prefix(prefix) => self.after(prefix, None).collect(),
            Read::Page { prefix, after, count } => {
                self.after(prefix, after.as_ref()).take(usize::try_from(*count).unwrap_or(usize::MAX)).collect()
            }
        }
    }

    fn after<'a>(&'a self, prefix: &'a str, after: Option<&Key>) -> impl Iterator<Item = (Key, Vec<u8>)> + use<'a> {
        let from = match after {
            Some(key) if key.as_str() >= prefix => Bound::Excluded(key.clone()),
            Some(_) | None => Bound::Included(prefix.to_owned()),
        };
        let range = self.records.range((from, Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(prefix)).map(copy)
    }
}

fn copy((key, value): (&Key, &Vec<u8>)) -> (Key, Vec<u8>) {
    (key.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Change {
        Change::Put(key.into(), value.into())
    }

    fn request(compare: Vec<Compare>, change: Vec<Change>, read: Vec<Read>) -> Request {
        Request { id: 1, compare, change, read }
    }

    #[test]
    fn a_transaction_happens_whole_or_not_at_all() {
        let mut store = Store::default();
        let absent = |key: &str| Compare::Absent(key.into());
        let made = store.execute(&request(vec![absent("a")], vec![put("a", "1"), put("b", "2")], vec![])).unwrap();
        assert!(made.is_committed);
        assert_eq!(made.revision, 1);
        let before = store.clone();
        let compare = vec![absent("c"), Compare::Equals("b".into(), b"1".into())];
        let refused = store.execute(&request(compare, vec![put("c", "3")], vec![Read::Record("b".into())])).unwrap();
        assert!(!refused.is_committed);
        assert_eq!(refused.records, [("b".to_owned(), b"2".to_vec())]);
        assert_eq!(store, before);
    }

    #[test]
    fn pages_cover_a_prefix_once_and_nothing_else() {
        let mut store = Store::default();
        let names = ["a/0", "a/1", "a/2", "a/3", "a/4", "b/0"];
        store.execute(&request(vec![], names.map(|name| put(name, "")).to_vec(), vec![])).unwrap();
        let mut seen = Vec::new();
        loop {
            let after = seen.last().cloned();
            let read = vec![Read::Page { prefix: "a/".into(), after, count: 2 }];
            let page = store.execute(&request(vec![], vec![], read)).unwrap().records;
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|(key, _)| key));
        }
        assert_eq!(seen, names[..5]);
    }

    #[test]
    fn what_no_facility_takes_is_refused() {
        let mut store = Store::default();
        let mut refused = |change: Vec<Change>| store.execute(&request(vec![], change, vec![])).unwrap_err();
        let twice = Malformed::Twice { key: "a/1".into() };
        assert_eq!(refused(vec![put("a/1", "x"), put("a/1", "y")]), twice);
        assert_eq!(refused(vec![Change::DeletePrefix("a/".into()), put("a/1", "x")]), twice);
        assert_eq!(refused(vec![Change::DeletePrefix(String::new())]), Malformed::Nameless);
        let many = (0..121).map(|number| put(&number.to_string(), "")).collect();
        assert_eq!(refused(many), Malformed::Operations { found: 121 });
        let long = vec![Change::Put("a".into(), vec![0; super::super::REQUEST_BYTES_MAX])];
        assert!(matches!(refused(long), Malformed::Bytes { .. }));
    }
}
