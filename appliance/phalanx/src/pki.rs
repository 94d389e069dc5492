//! `phalanx pki`: the certificates by which the members of a cluster know each other, in files.
//!
//! `init` makes the cluster's authority, `issue` a member's certificate and key, `show` says what a certificate holds.
//! Nothing is ever written over. Keys are readable by their owner only, and the authority's key need not be on any
//! member.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use xcf::pki::{Authority, Issued, PkiError, Validity};
use xcf::{Certificate, Name, NameError};
use zeroize::Zeroizing;

use crate::command_line::{Outcome, PkiArguments, PkiInit, PkiIssue, PkiShow, PkiVerb, print};

/// The authority's files, without their endings.
const AUTHORITY: &str = "ca";
const DAY_SECONDS: u64 = 86_400;
/// How far a member's clock may be behind ours.
const CLOCK_SECONDS: u64 = 3_600;
/// No certificate or key of ours is nearly as long.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("a member cannot be called {AUTHORITY:?}: its files would be the authority's; choose another name")]
    Reserved,
    #[error("{} is there already and is not written over; move it away, or choose another directory", .0.display())]
    Exists(PathBuf),
    #[error("{} is not there; make the cluster's authority first: phalanx pki init --directory {} --cluster NAME", .0.display(), .1.display())]
    NoAuthority(PathBuf, PathBuf),
    #[error("{} is readable by others than its owner (mode {mode:03o}); take that from them: chmod 600 {}", .path.display(), .path.display())]
    OpenKey { path: PathBuf, mode: u32 },
    #[error("{}: {why}", .path.display())]
    File { path: PathBuf, why: std::io::Error },
    #[error("{} is longer than {FILE_BYTES_MAX} bytes and thus no certificate or key", .0.display())]
    TooLong(PathBuf),
    #[error("{}: {why}", .path.display())]
    Authority { path: PathBuf, why: PkiError },
    #[error("{0}")]
    Pki(#[from] PkiError),
    #[error("{} holds no certificate in PEM: {found}", .path.display())]
    NoCertificate { path: PathBuf, found: String },
    #[error("--days {found}; allowed are 1 to {max}")]
    Days { found: u64, max: u64 },
    #[error("the clock says a time before 1970; set it")]
    Clock,
}

/// `phalanx pki`.
pub fn pki(arguments: &PkiArguments) -> Outcome {
    let done = match &arguments.verb {
        PkiVerb::Init(arguments) => init(arguments),
        PkiVerb::Issue(arguments) => issue(arguments),
        PkiVerb::Show(arguments) => show(arguments),
    };
    match done {
        Ok(text) => print(&text),
        Err(failure) => {
            eprintln!("error: {failure}");
            Outcome::Runtime
        }
    }
}

fn init(arguments: &PkiInit) -> Result<String, Failure> {
    let cluster = Name::new(&arguments.cluster)?;
    let directory = &arguments.directory;
    let issued = Authority::generate(&cluster, validity(arguments.days, None)?)?;
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Ok(()) => {}
        Err(why) => return Err(Failure::File { path: directory.clone(), why }),
    }
    let (certificate, key) = write(directory, AUTHORITY, &issued)?;
    Ok(format!(
        "made the authority of cluster {cluster}, valid for {} days:\n  {}  certificate, for every member\n  {}  key, for no member: keep it safe, it can make members\nnow: phalanx pki issue --directory {} --member NAME\n",
        arguments.days,
        certificate.display(),
        key.display(),
        directory.display(),
    ))
}

fn issue(arguments: &PkiIssue) -> Result<String, Failure> {
    let member = Name::new(&arguments.member)?;
    if member.as_str() == AUTHORITY {
        return Err(Failure::Reserved);
    }
    let directory = &arguments.directory;
    let authority = read_authority(directory)?;
    let validity = validity(arguments.days.unwrap_or(365), arguments.days.is_none().then_some(&authority))?;
    let issued = authority.issue(&member, validity)?;
    let (certificate, key) = write(directory, member.as_str(), &issued)?;
    Ok(format!(
        "issued to member {member} of cluster {}, valid until {}:\n  {}  certificate\n  {}  key\nthe member needs both, and {}\n",
        authority.cluster(),
        date(i64::try_from(validity.until_unix_seconds).unwrap_or(i64::MAX)),
        certificate.display(),
        key.display(),
        directory.join(format!("{AUTHORITY}.pem")).display(),
    ))
}

fn show(arguments: &PkiShow) -> Result<String, Failure> {
    let path = &arguments.file;
    let contents = read(path)?;
    let certificates = Certificate::from_pem(&contents).map_err(|why| {
        // The one mistake that is easily made.
        let is_key = contents.windows(11).any(|window| window == b"PRIVATE KEY");
        let found = if is_key { "it holds a key".to_owned() } else { why.found };
        Failure::NoCertificate { path: path.clone(), found }
    })?;
    let mut text = String::new();
    certificates.iter().for_each(|certificate| describe(&mut text, certificate));
    Ok(text)
}

fn describe(text: &mut String, certificate: &Certificate) {
    let role = match (certificate.is_authority, certificate.member()) {
        (true, _) => "an authority".to_owned(),
        (false, Ok((member, cluster))) => format!("member {member} of cluster {cluster}"),
        (false, Err(why)) => format!("no member: {why}"),
    };
    let key = if certificate.is_ed25519 { "Ed25519" } else { "not Ed25519, which members do not accept" };
    let lines = [
        ("role", role),
        ("subject", certificate.subject.clone()),
        ("issuer", certificate.issuer.clone()),
        ("valid from", date(certificate.not_before_unix_seconds)),
        ("valid until", date(certificate.not_after_unix_seconds)),
        ("names", certificate.dns_names.join(" ")),
        ("key", key.to_owned()),
        ("serial", certificate.serial.clone()),
    ];
    for (what, value) in lines {
        // A `String` takes whatever is written to it.
        let _written = writeln!(text, "{what:<12}{value}");
    }
}

fn date(unix_seconds: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(unix_seconds) {
        Ok(at) => {
            let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
            format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", at.hour(), at.minute(), at.second())
        }
        Err(_) => format!("second {unix_seconds} of 1970"),
    }
}

/// So many days from now; no longer than the authority's own, where one is given.
fn validity(days: u64, at_most: Option<&Authority>) -> Result<Validity, Failure> {
    const DAYS_MAX: u64 = 36_500;
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Failure::Days { found: days, max: DAYS_MAX });
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Failure::Clock)?.as_secs();
    let until = now + days * DAY_SECONDS;
    let end = at_most.and_then(|authority| u64::try_from(authority.until_unix_seconds()).ok());
    Ok(Validity {
        from_unix_seconds: now.saturating_sub(CLOCK_SECONDS),
        until_unix_seconds: end.map_or(until, |end| until.min(end)),
    })
}

fn read_authority(directory: &Path) -> Result<Authority, Failure> {
    let (certificate, key) = paths(directory, AUTHORITY);
    for path in [&certificate, &key] {
        if !path.exists() {
            return Err(Failure::NoAuthority(path.clone(), directory.to_owned()));
        }
    }
    let mode = fs::metadata(&key).map_err(|why| Failure::File { path: key.clone(), why })?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::OpenKey { path: key, mode });
    }
    let (certificate_pem, key_pem) = (read(&certificate)?, read(&key)?);
    Authority::from_pem(&certificate_pem, &key_pem).map_err(|why| {
        let path = if matches!(why, PkiError::AuthorityKey(_)) { key } else { certificate };
        Failure::Authority { path, why }
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |why| Failure::File { path: path.to_owned(), why };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(Failure::TooLong(path.to_owned()));
    }
    // Large enough from the start, so that no copy of a key stays behind where the buffer has grown.
    let mut contents = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(FILE_BYTES_MAX).read_to_end(&mut contents).map_err(failed)?;
    Ok(contents)
}

fn paths(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")))
}

/// Writes both files or none, and over nothing.
fn write(directory: &Path, name: &str, issued: &Issued) -> Result<(PathBuf, PathBuf), Failure> {
    let (certificate, key) = paths(directory, name);
    if let Some(there) = [&certificate, &key].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::Exists(there.clone()));
    }
    write_new(&key, 0o600, issued.key_pem.as_bytes())?;
    if let Err(failure) = write_new(&certificate, 0o644, issued.certificate_pem.as_bytes()) {
        // A key without its certificate would only stand in the way of the next attempt.
        let _removed = fs::remove_file(&key);
        return Err(failure);
    }
    Ok((certificate, key))
}

fn write_new(path: &Path, mode: u32, contents: &[u8]) -> Result<(), Failure> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|why| match why.kind() {
            ErrorKind::AlreadyExists => Failure::Exists(path.to_owned()),
            _other => Failure::File { path: path.to_owned(), why },
        })?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(|why| {
        let _removed = fs::remove_file(path);
        Failure::File { path: path.to_owned(), why }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xcf::{Identity, PemFile};

    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("phalanx-pki-{test}-{}", std::process::id()));
            let _absent = fs::remove_dir_all(&path);
            Directory(path)
        }

        fn init(&self) -> Result<String, Failure> {
            init(&PkiInit { directory: self.0.clone(), cluster: "east".to_owned(), days: 30 })
        }

        fn issue(&self, member: &str, days: Option<u64>) -> Result<String, Failure> {
            issue(&PkiIssue { directory: self.0.clone(), member: member.to_owned(), days })
        }

        fn mode(&self, file: &str) -> u32 {
            fs::metadata(self.0.join(file)).unwrap().mode() & 0o777
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _removed = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_issued_makes_an_identity_and_keys_are_their_owners_only() {
        let directory = Directory::new("identity");
        directory.init().unwrap();
        directory.issue("node-1", None).unwrap();
        assert_eq!((directory.mode("ca.key"), directory.mode("node-1.key"), directory.mode("")), (0o600, 0o600, 0o700));
        let file = |name: &str| fs::read(directory.0.join(name)).unwrap();
        let (authority, certificate, key) = (file("ca.pem"), file("node-1.pem"), file("node-1.key"));
        let pem = |contents| PemFile { path: "file", contents };
        let identity = Identity::from_pem(pem(&authority), pem(&certificate), pem(&key)).unwrap();
        assert_eq!((identity.member().as_str(), identity.cluster().as_str()), ("node-1", "east"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        identity.check(now).unwrap();
        assert!(identity.check(now + 31 * DAY_SECONDS).is_err(), "no longer than the authority");
        let shown = show(&PkiShow { file: directory.0.join("node-1.pem") }).unwrap();
        assert!(shown.contains("member node-1 of cluster east") && shown.contains("Ed25519"), "{shown}");
        assert!(show(&PkiShow { file: directory.0.join("ca.pem") }).unwrap().contains("an authority"));
    }

    #[test]
    fn nothing_is_written_over() {
        let directory = Directory::new("over");
        directory.init().unwrap();
        let before = fs::read(directory.0.join("ca.key")).unwrap();
        assert!(matches!(directory.init(), Err(Failure::Exists(_))));
        assert_eq!(fs::read(directory.0.join("ca.key")).unwrap(), before);
        directory.issue("a", None).unwrap();
        assert!(matches!(directory.issue("a", None), Err(Failure::Exists(_))));
        fs::remove_file(directory.0.join("a.key")).unwrap();
        assert!(matches!(directory.issue("a", None), Err(Failure::Exists(_))), "one of both is enough to refuse");
        assert!(!directory.0.join("a.key").exists());
    }

    #[test]
    fn refusals_say_what_to_do() {
        let directory = Directory::new("refusals");
        let says = |failure: Result<String, Failure>| failure.unwrap_err().to_string();
        assert!(says(directory.issue("a", None)).contains("phalanx pki init"));
        directory.init().unwrap();
        assert!(says(directory.issue("ca", None)).contains("choose another name"));
        assert!(says(directory.issue("A", None)).contains("a-z"));
        assert!(says(directory.issue("a", Some(31))).contains("fewer days"));
        assert!(says(directory.issue("a", Some(0))).contains("allowed are"));
        let key = directory.0.join("ca.key");
        assert!(says(show(&PkiShow { file: key.clone() })).contains("it holds a key"));
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(says(directory.issue("a", None)).contains("chmod 600"));
        fs::remove_file(&key).unwrap();
        directory.issue("a", None).unwrap_err();
        assert!(!directory.0.join("a.pem").exists());
    }
}
