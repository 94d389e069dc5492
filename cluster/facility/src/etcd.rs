//! etcd: the store of a cluster.
//!
//! One connection at a time, to one endpoint: a request that fails or takes too long gives it up, and the next one asks
//! the other endpoints in turn. A new connection must answer a linearizable read before a transaction is entrusted to it,
//! so that none is lost to a member that stands alone. No transaction is ever sent twice.

use std::time::Duration;

use cluster::facility::{Change, Compare, Key, Outcome, Read, Request, name};
use etcd_client::{
    Certificate, Client, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity, KvClient, TlsOptions, Txn,
    TxnOp, TxnOpResponse,
};

use crate::file::{at, read_secret};
use crate::settings::{EtcdSettings, StartError, TlsSettings};
use crate::worker::Store;

/// The longest reply that is taken: a page of records is far shorter.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// No certificate or key file is longer.
const PEM_BYTES_MAX: usize = 1 << 16;

/// etcd, as far as it is connected.
pub struct Etcd {
    endpoints: Vec<String>,
    prefix: String,
    options: ConnectOptions,
    /// How long an endpoint may take to show that it can be used, before the next is tried.
    probe_limit: Duration,
    connection: Option<Connection>,
    /// Which endpoint is tried next.
    next: usize,
}

struct Connection {
    /// Holds the connection open.
    _client: Client,
    records: KvClient,
}

impl Etcd {
    /// Checks everything that can be checked without etcd. `limit` is how long a request may take: time for each endpoint
    /// to be tried once.
    pub fn new(settings: &EtcdSettings, limit: Duration) -> Result<Etcd, StartError> {
        let probe_limit = limit / u32::try_from(settings.endpoints.len()).unwrap_or(u32::MAX).max(1);
        let mut options = ConnectOptions::new().with_connect_timeout(probe_limit);
        if let Some(tls) = &settings.tls {
            options = options.with_tls(tls_options(tls)?);
        }
        let etcd = Etcd {
            endpoints: settings.endpoints.clone(),
            prefix: settings.names_begin_with()?,
            options,
            probe_limit,
            connection: None,
            next: 0,
        };
        etcd.try_settings()?;
        Ok(etcd)
    }

    /// Lets the client take the settings in, certificates included; it connects to nothing yet.
    fn try_settings(&self) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let client = runtime.block_on(Client::connect(&self.endpoints, Some(self.options.clone())));
        client.map(|_| ()).map_err(|error| StartError::Etcd(causes(&error)))
    }

    /// Connects to the next endpoint that answers.
    async fn connect(&mut self) -> Result<KvClient, String> {
        let mut why = String::new();
        for _ in 0..self.endpoints.len() {
            let endpoint = self.endpoints[self.next % self.endpoints.len()].clone();
            match tokio::time::timeout(self.probe_limit, self.connect_to(&endpoint)).await {
                Ok(Ok(connection)) => {
                    let records = connection.records.clone();
                    self.connection = Some(connection);
                    return Ok(records);
                }
                Ok(Err(error)) => why = format!("{endpoint}: {}", causes(&error)),
                Err(_) => why = format!("{endpoint}: no answer within {:?}", self.probe_limit),
            }
            self.next = self.next.wrapping_add(1);
        }
        Err(why)
    }

    async fn connect_to(&self, endpoint: &str) -> Result<Connection, etcd_client::Error> {
        let client = Client::connect([endpoint], Some(self.options.clone())).await?;
        let mut records = client.kv_client().max_decoding_message_size(REPLY_BYTES_MAX);
        records.get(self.key(name::LINEAGE), None).await?;
        Ok(Connection { _client: client, records })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn compare(&self, compare: &Compare) -> etcd_client::Compare {
        let key = self.key(compare.key());
        match compare {
            Compare::Absent(_) => etcd_client::Compare::create_revision(key, CompareOp::Equal, 0),
            Compare::Present(_) => etcd_client::Compare::create_revision(key, CompareOp::Greater, 0),
            Compare::Equals(_, value) => etcd_client::Compare::value(key, CompareOp::Equal, value.clone()),
        }
    }

    fn change(&self, change: &Change) -> TxnOp {
        let key = self.key(change.key());
        match change {
            Change::Put(_, value) => TxnOp::put(key, value.clone(), None),
            Change::Delete(_) => TxnOp::delete(key, None),
            Change::DeletePrefix(_) => TxnOp::delete(key, Some(DeleteOptions::new().with_prefix())),
        }
    }

    fn read(&self, read: &Read) -> Option<TxnOp> {
        let key = self.key(read.key());
        match read {
            Read::Record(_) => Some(TxnOp::get(key, None)),
            Read::Prefix(_) => Some(TxnOp::get(key, Some(GetOptions::new().with_prefix()))),
            // To etcd a limit of none is no limit.
            Read::Page { count: 0, .. } => None,
            Read::Page { prefix, after, count } => {
                let end = end_of(key.as_bytes());
                let from = match after {
                    Some(after) if after >= prefix => format!("{}\0", self.key(after)),
                    Some(_) | None => key,
                };
                let options = GetOptions::new().with_range(end).with_limit((*count).into());
                Some(TxnOp::get(from, Some(options)))
            }
        }
    }

    fn outcome(&self, response: &etcd_client::TxnResponse) -> Result<Outcome, String> {
        let revision = response.header().map(|header| header.revision());
        let revision =
            revision.and_then(|revision| u64::try_from(revision).ok()).ok_or("a reply without a revision")?;
        let mut records = Vec::new();
        for answer in response.op_responses() {
            let TxnOpResponse::Get(mut got) = answer else { continue };
            for record in got.take_kvs() {
                let (key, value) = record.into_key_value();
                let key = key.strip_prefix(self.prefix.as_bytes()).ok_or("a record of another prefix")?;
                let key: Key = String::from_utf8(key.to_vec()).map_err(|_| "a record whose name is no text")?;
                records.push((key, value));
            }
        }
        Ok(Outcome { is_committed: response.succeeded(), records, revision })
    }
}

impl Store for Etcd {
    async fn execute(&mut self, request: &Request) -> Result<Outcome, String> {
        let mut records = match &self.connection {
            Some(connection) => connection.records.clone(),
            None => self.connect().await?,
        };
        let reads: Vec<TxnOp> = request.read.iter().filter_map(|read| self.read(read)).collect();
        let compares: Vec<_> = request.compare.iter().map(|compare| self.compare(compare)).collect();
        let changes: Vec<_> = request.change.iter().map(|change| self.change(change)).collect();
        let transaction = Txn::new().when(compares).and_then([changes, reads.clone()].concat()).or_else(reads);
        match records.txn(transaction).await {
            Ok(response) => self.outcome(&response),
            Err(error) => {
                self.gave_up();
                Err(causes(&error))
            }
        }
    }

    fn gave_up(&mut self) {
        self.connection = None;
        self.next = self.next.wrapping_add(1);
    }
}

/// The first name that does not begin so.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0]
}

fn tls_options(settings: &TlsSettings) -> Result<TlsOptions, StartError> {
    let read = |path: &std::path::PathBuf| std::fs::read(path).map_err(at(path, "reading it"));
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(read(&settings.authority)?));
    if let Some((certificate, key)) = &settings.identity {
        let key = read_secret(key, PEM_BYTES_MAX)?;
        options = options.identity(Identity::from_pem(read(certificate)?, key.as_slice()));
    }
    if let Some(name) = &settings.server_name {
        options = options.domain_name(name);
    }
    Ok(options)
}

/// What went wrong, for an operator. Of what etcd or the transport says, the client's own text repeats everything twice.
fn causes(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) => {
            with_causes(status.message().to_owned(), std::error::Error::source(status))
        }
        other => with_causes(other.to_string(), std::error::Error::source(other)),
    }
}

/// An error with all its causes: what the first of them says is often no more than "transport error".
fn with_causes(mut text: String, mut cause: Option<&dyn std::error::Error>) -> String {
    while let Some(deeper) = cause {
        let said = deeper.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = deeper.source();
    }
    text
}
