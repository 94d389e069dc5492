//! What stands on the command line, and what the exit codes mean.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use control::report::{What, socket};

/// A clustered IPsec appliance.
#[derive(Debug, Parser)]
#[command(name = "phalanx", version, about, arg_required_else_help = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the appliance until SIGTERM or SIGINT
    Run(RunArguments),
    /// Check a configuration and everything that it names, and start nothing
    Check(ConfigArguments),
    /// Ask a running appliance what it sees
    Show(ShowArguments),
    /// Say which target has a connection, and why
    Where(WhereArguments),
    /// Give a target no new connections; those that it has stay
    Drain(TargetArguments),
    /// Give a drained target new connections again
    Undrain(TargetArguments),
    /// Make and show the certificates by which the members of a cluster know each other
    Pki(PkiArguments),
    /// Say what this program is
    Version(OutputArguments),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "/etc/phalanx/phalanx.yaml")]
    pub config: PathBuf,
}

/// What `run` needs to know.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Directory of what must survive a restart; one for each appliance
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/phalanx", env = "PHALANX_STATE")]
    pub state: PathBuf,
    /// Where `phalanx show` reaches this appliance
    #[command(flatten)]
    pub socket: SocketArguments,
}

/// The command socket.
#[derive(Debug, Args)]
pub struct SocketArguments {
    /// The command socket
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH, env = "PHALANX_SOCKET")]
    pub socket: PathBuf,
}

/// What `show` needs to know.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// What to show
    pub what: Shown,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArguments,
    /// Where the appliance is.
    #[command(flatten)]
    pub socket: SocketArguments,
}

/// What `pki` needs to know.
#[derive(Debug, Args)]
pub struct PkiArguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: PkiVerb,
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum PkiVerb {
    /// Make a cluster's authority: DIRECTORY/ca.pem for every member, DIRECTORY/ca.key for none
    ///
    /// Members believe only certificates that this authority has issued. Whoever holds its key can make members, so it
    /// is best kept away from all of them. Nothing is written over.
    Init(PkiInit),
    /// Issue a member's certificate and key: DIRECTORY/MEMBER.pem and DIRECTORY/MEMBER.key
    ///
    /// DIRECTORY must hold the authority. The member needs both files, and ca.pem. To renew a certificate, move the old
    /// files away, issue anew, and restart the member, which reads them at its start. Nothing is written over.
    Issue(PkiIssue),
    /// Say what a certificate holds, and until when it is valid
    Show(PkiShow),
}

/// What `pki init` needs to know.
#[derive(Debug, Args)]
pub struct PkiInit {
    /// Where the files go; made if it is not there, readable by its owner only
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// The cluster's name, as in its configuration: a-z, 0-9 and -
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// For how many days the authority is valid
    #[arg(long, value_name = "N", default_value_t = 3_650)]
    pub days: u64,
}

/// What `pki issue` needs to know.
#[derive(Debug, Args)]
pub struct PkiIssue {
    /// Where the authority is, and where the files go
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// The member's name, as in the cluster's configuration: a-z, 0-9 and -
    #[arg(long, value_name = "NAME")]
    pub member: String,
    /// For how many days the certificate is valid [default: 365, or as long as the authority]
    #[arg(long, value_name = "N")]
    pub days: Option<u64>,
}

/// What `pki show` needs to know.
#[derive(Debug, Args)]
pub struct PkiShow {
    /// A file of certificates in PEM
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    /// Security associations, each direction by itself
    Sas,
    /// Packets dropped, by reason
    Drops,
    /// Where every packet has ended
    Balance,
    /// Connections of clients
    Connections,
    /// Ports
    Ports,
    /// Processor cores
    Cores,
    /// Virtual addresses: who owns and who serves them
    Dvipas,
    /// Targets of the DVIPAs that this appliance owns
    Targets,
    /// CHILD_SAs, its own and the shadows of others'
    Shadow,
    /// What SAs may carry in the cluster, and have
    Lifesize,
    /// Members and coupling facility
    Cluster,
}

impl From<Shown> for What {
    fn from(shown: Shown) -> What {
        match shown {
            Shown::Sas => What::Sas,
            Shown::Drops => What::Drops,
            Shown::Balance => What::Balance,
            Shown::Connections => What::Connections,
            Shown::Ports => What::Ports,
            Shown::Cores => What::Cores,
            Shown::Dvipas => What::Dvipas,
            Shown::Targets => What::Targets,
            Shown::Shadow => What::Shadow,
            Shown::Lifesize => What::Lifesize,
            Shown::Cluster => What::Cluster,
        }
    }
}

/// Which connection.
#[derive(Debug, Args)]
pub struct WhereArguments {
    /// tcp, udp, icmp or a number
    pub protocol: String,
    /// The client's end, such as 10.1.0.5:40000
    pub source: String,
    /// The service's end, such as 203.0.113.80:80
    pub destination: String,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArguments,
    /// Where the appliance is.
    #[command(flatten)]
    pub socket: SocketArguments,
}

/// Which target.
#[derive(Debug, Args)]
pub struct TargetArguments {
    /// The member's name
    pub target: String,
    /// Where the appliance is.
    #[command(flatten)]
    pub socket: SocketArguments,
}

/// How to print.
#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All went well.
    Ok,
    /// Something failed at run time.
    Runtime,
    /// The configuration is refused.
    Configuration,
    /// No appliance answers on the command socket.
    NotReachable,
}

impl Outcome {
    /// What the process ends with.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Ok => 0,
            Outcome::Runtime => 1,
            Outcome::Configuration => 2,
            Outcome::NotReachable => 3,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        ExitCode::from(outcome.exit_code())
    }
}

/// `phalanx version`.
pub fn print_version(json: bool) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    print(&if json {
        format!("{}\n", serde_json::json!({ "name": "phalanx", "version": version }))
    } else {
        format!("phalanx {version}\n")
    })
}

/// Prints what was asked for. Nobody who stops reading it early is told of an error.
pub fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Outcome::Ok,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Outcome::Ok,
        Err(error) => {
            eprintln!("error: writing to standard output failed: {error}");
            Outcome::Runtime
        }
    }
}
