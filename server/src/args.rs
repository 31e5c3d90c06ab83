//! The command line and the environment: the only file that reads either.

use std::{env, path::PathBuf};

use argh::FromArgs;

use crate::{
    config::{self, Advertise, Config, ConfigError, Layer, Stated, advertise},
    dev, status, store,
};

mod ring;

use ring::Ring;

/// Specter's node. It publishes services that are behind NAT: clients keep links to it, visitors reach them through it.
#[derive(FromArgs, Debug)]
#[argh(
    help_triggers("-h", "--help"),
    example = "Try everything on this computer:\n  {command_name} dev",
    example = "Run a node:\n  {command_name} pki init --cert-dir cert --advertise node.example.com:443\n  \
               {command_name} run --apex example.com --data-dir data --cert-dir cert"
)]
struct TopLevel {
    /// print the version
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Subcommand>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Subcommand {
    Dev(Dev),
    Run(Box<Run>),
    Pki(Pki),
    Store(Store),
    Ring(Ring),
}

/// Start a node and a client on this computer, with a page to look at. Needs no file, no root and no network.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "dev",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --expose http://127.0.0.1:5173"
)]
struct Dev {
    /// where certificates, store and hostnames are kept (default: ~/.local/share/specter-dev)
    #[argh(option)]
    data_dir: Option<PathBuf>,
    /// port for TLS and QUIC on loopback (default: 8443)
    #[argh(option, default = "8443")]
    port: u16,
    /// port for plain HTTP on loopback (default: 8080)
    #[argh(option, default = "8080")]
    http_port: u16,
    /// how many nodes, 1 to 9; the others take the ports behind these (default: as many as before, at first 1)
    #[argh(option)]
    nodes: Option<u8>,
    /// what to publish instead of the built-in page, such as http://127.0.0.1:5173 or tcp://127.0.0.1:22
    #[argh(option)]
    expose: Option<String>,
    /// log filter: error, warn, info, debug, trace or specter_server=debug,info (default: warn)
    #[argh(option)]
    log: Option<String>,
}

/// Run a node. A flag beats the environment variable of its name (SPECTER_DATA_DIR for --data-dir; lists with commas),
/// and that beats the file.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "run",
    help_triggers("-h", "--help"),
    example = "{command_name} --config /etc/specter/server.toml",
    example = "{command_name} --apex example.com --data-dir data --cert-dir cert --listen 0.0.0.0:443"
)]
struct Run {
    /// configuration file, TOML
    #[argh(option)]
    config: Option<PathBuf>,
    /// IP:PORT to listen on with TCP and UDP, repeatable (default: 0.0.0.0:443)
    #[argh(option)]
    listen: Vec<String>,
    /// IP:PORT for TCP alone, repeatable
    #[argh(option)]
    listen_tcp: Vec<String>,
    /// IP:PORT for UDP alone, repeatable
    #[argh(option)]
    listen_udp: Vec<String>,
    /// IP:PORT for plain HTTP, repeatable, or none (default: 0.0.0.0:80)
    #[argh(option)]
    listen_http: Vec<String>,
    /// HOST:PORT of a node of the cluster to join, repeatable (default: a new cluster)
    #[argh(option)]
    join: Vec<String>,
    /// HOST:PORT at which the node is reached from outside (default: the first apex and the TCP port)
    #[argh(option)]
    advertise: Option<String>,
    /// domain under which tunnels live, repeatable
    #[argh(option)]
    apex: Vec<String>,
    /// where the node keeps its store
    #[argh(option)]
    data_dir: Option<String>,
    /// when a write is acknowledged: always (on the disk), or everysec (faster; a power cut takes the last second)
    #[argh(option)]
    sync: Option<String>,
    /// directory with the node's certificates, as `pki init` makes it
    #[argh(option)]
    cert_dir: Option<String>,
    /// take the certificates from SPECTER_CERT_CA and its siblings: base64 of PEM
    #[argh(switch)]
    cert_env: bool,
    /// how long streams in progress may take when the node stops, in seconds (default: 20)
    #[argh(option)]
    drain: Option<String>,
    /// log filter: error, warn, info, debug, trace or specter_server=debug,info (default: info)
    #[argh(option)]
    log: Option<String>,
    /// write the log as JSON lines
    #[argh(switch)]
    log_json: bool,
    /// end at once with the standard input, as the nodes of `dev` do
    #[argh(switch, hidden_help)]
    with_parent: bool,
}

/// Make certificate directories.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "pki", help_triggers("-h", "--help"))]
struct Pki {
    #[argh(subcommand)]
    command: PkiSubcommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum PkiSubcommand {
    Init(PkiInit),
    Node(PkiNode),
}

/// Make the authorities of a new cluster and the certificate of its first node.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "init",
    help_triggers("-h", "--help"),
    example = "{command_name} --cert-dir cert --advertise node1.example.com:443"
)]
struct PkiInit {
    /// directory to make; files in it are never overwritten
    #[argh(option)]
    cert_dir: PathBuf,
    /// HOST:PORT at which the node is reached from outside
    #[argh(option)]
    advertise: String,
}

/// Make the certificate directory of another node of a cluster.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "node",
    help_triggers("-h", "--help"),
    example = "{command_name} --cert-dir cert --out cert-node2 --advertise node2.example.com:443"
)]
struct PkiNode {
    /// directory made by `pki init`, with ca.key
    #[argh(option)]
    cert_dir: PathBuf,
    /// directory to make for the other node; files in it are never overwritten
    #[argh(option)]
    out: PathBuf,
    /// HOST:PORT at which the other node is reached from outside
    #[argh(option)]
    advertise: String,
}

/// Look at the data directory of a node, copy it, or make it smaller.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "store", help_triggers("-h", "--help"))]
struct Store {
    #[argh(subcommand)]
    command: StoreSubcommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum StoreSubcommand {
    Check(StoreCheck),
    Dump(StoreDump),
    Backup(StoreBackup),
    Restore(StoreRestore),
    Export(StoreExport),
    Compact(StoreCompact),
}

/// Read a data directory as a start of its node would, change nothing, and tell what it holds or what is wrong with it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check", help_triggers("-h", "--help"), example = "{command_name} data")]
struct StoreCheck {
    /// the node's --data-dir; the node may run
    #[argh(positional, arg_name = "dir")]
    data_dir: PathBuf,
    /// write one JSON object
    #[argh(switch)]
    json: bool,
}

/// Print every record of the log that the snapshot does not have yet, one a line.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "dump", help_triggers("-h", "--help"), example = "{command_name} data --json")]
struct StoreDump {
    /// the node's --data-dir; the node may run
    #[argh(positional, arg_name = "dir")]
    data_dir: PathBuf,
    /// write JSON lines
    #[argh(switch)]
    json: bool,
}

/// Copy a data directory into a new one, and read the copy to be sure. The node may run.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "backup", help_triggers("-h", "--help"), example = "{command_name} data --out backup")]
struct StoreBackup {
    /// the node's --data-dir
    #[argh(positional, arg_name = "dir")]
    data_dir: PathBuf,
    /// directory to make
    #[argh(option)]
    out: PathBuf,
    /// write one JSON object
    #[argh(switch)]
    json: bool,
}

/// Make a data directory of the backups of a cluster that is lost, for a new node that founds it anew. While a majority of
/// its nodes lives, start on an empty directory instead: they fill it.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "restore",
    help_triggers("-h", "--help"),
    example = "{command_name} data --from backup-of-node1 --from backup-of-node2"
)]
struct StoreRestore {
    /// directory to make, for the node's --data-dir
    #[argh(positional, arg_name = "dir")]
    data_dir: PathBuf,
    /// directory made by `store backup`; one for each node, made at about the same time
    #[argh(option)]
    from: Vec<PathBuf>,
    /// take what can be read of a damaged directory; for a node without backup and peers
    #[argh(switch)]
    accept_loss: bool,
    /// tell what would be made, and make nothing
    #[argh(switch)]
    dry_run: bool,
    /// write one JSON object
    #[argh(switch)]
    json: bool,
}

/// Print every key that holds something as a JSON line: its slot, and key, value and set in base64.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "export", help_triggers("-h", "--help"), example = "{command_name} data")]
struct StoreExport {
    /// the node's --data-dir; the node may run
    #[argh(positional, arg_name = "dir")]
    data_dir: PathBuf,
    /// for the likeness with the other commands: the lines are JSON in any case
    #[argh(switch)]
    json: bool,
}

/// Write the log of a stopped node into its snapshot, and drop it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "compact", help_triggers("-h", "--help"), example = "{command_name} data")]
struct StoreCompact {
    /// the node's --data-dir; the node must be stopped
    #[argh(positional, arg_name = "dir")]
    data_dir: PathBuf,
    /// write one JSON object
    #[argh(switch)]
    json: bool,
}

/// What the program is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Look at or change a data directory.
    Store(store::Task),
    /// Ask a running node how its cluster is.
    RingStatus(status::Task),
    /// Ask a running node which slots stand still, or let it go on alone with them.
    RingRecover(status::recover::Task),
    /// Print a text and end.
    Print(String),
    /// Try everything on this computer.
    Dev(dev::Options),
    /// Run a node.
    Run(Box<Config>),
    /// Run a node that ends at once with its standard input.
    RunWithParent(Box<Config>),
    /// Make a cluster's authorities and its first node.
    PkiInit {
        /// Where.
        directory: PathBuf,
        /// The node.
        advertise: Advertise,
    },
    /// Make another node.
    PkiNode {
        /// Where the cluster's authorities are.
        directory: PathBuf,
        /// Where to make it.
        out: PathBuf,
        /// The node.
        advertise: Advertise,
    },
}

/// Why the command line cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// Not a command line of ours; the text says how one looks.
    #[error("{0}")]
    Usage(String),
    /// The settings of `run`.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Command {
    /// Reads this process's command line and environment.
    ///
    /// # Errors
    /// [`ArgsError`].
    pub fn from_process() -> Result<Self, ArgsError> {
        let arguments = env::args_os().skip(1).map(|argument| match argument.into_string() {
            Ok(argument) => Ok(argument),
            Err(argument) => Err(ArgsError::Usage(format!("the argument {argument:?} is not UTF-8"))),
        });
        Self::parse(&arguments.collect::<Result<Vec<_>, _>>()?, variable)
    }

    fn parse(arguments: &[String], variable: impl Fn(&str) -> Option<String>) -> Result<Self, ArgsError> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let top = match TopLevel::from_args(&["specter-server"], &arguments) {
            Ok(top) => top,
            Err(early) if early.status.is_ok() => return Ok(Self::Print(early.output)),
            Err(early) => return Err(ArgsError::Usage(early.output.trim_end().to_owned())),
        };
        match top.command {
            _ if top.version => Ok(Self::Print(format!("specter-server {}\n", env!("CARGO_PKG_VERSION")))),
            None => Err(ArgsError::Usage(
                "a command is missing: dev, run, pki, ring or store; `specter-server --help` tells more".to_owned(),
            )),
            Some(Subcommand::Dev(dev)) => Ok(Self::Dev(dev.options(variable)?)),
            Some(Subcommand::Run(run)) if run.with_parent => Ok(Self::RunWithParent(Box::new(run.config(variable)?))),
            Some(Subcommand::Run(run)) => Ok(Self::Run(Box::new(run.config(variable)?))),
            Some(Subcommand::Pki(Pki { command: PkiSubcommand::Init(init) })) => Ok(Self::PkiInit {
                directory: init.cert_dir,
                advertise: advertise(Stated::flag("--advertise", init.advertise))?,
            }),
            Some(Subcommand::Ring(ring)) => ring.command(variable),
            Some(Subcommand::Store(Store { command })) => Ok(Self::Store(command.task())),
            Some(Subcommand::Pki(Pki { command: PkiSubcommand::Node(node) })) => Ok(Self::PkiNode {
                directory: node.cert_dir,
                out: node.out,
                advertise: advertise(Stated::flag("--advertise", node.advertise))?,
            }),
        }
    }
}

impl Dev {
    fn options(self, variable: impl Fn(&str) -> Option<String>) -> Result<dev::Options, ArgsError> {
        let data_home = || {
            let home = variable("XDG_DATA_HOME").map(PathBuf::from);
            home.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")))
        };
        let data_dir = self.data_dir.or_else(|| Some(data_home()?.join("specter-dev"))).ok_or_else(|| {
            ArgsError::Usage("HOME is not set, so there is no place for the data; give one with --data-dir".to_owned())
        })?;
        if let Some(nodes) = self.nodes.filter(|nodes| !(1..=dev::NODES_MAX).contains(nodes)) {
            let error = Stated::flag("--nodes", nodes.to_string());
            return Err(error.wrong(format!("is no number of nodes from 1 to {}", dev::NODES_MAX)).into());
        }
        let flag = self.log.map(|text| Stated::flag("--log", text));
        let log = flag.or_else(|| variable("SPECTER_LOG").map(|text| Stated::variable("SPECTER_LOG", text)));
        Ok(dev::Options {
            program: env::current_exe().unwrap_or_else(|_| PathBuf::from("specter-server")),
            data_dir,
            port: self.port,
            http_port: self.http_port,
            nodes: self.nodes,
            expose: self.expose,
            log: log.map_or_else(|| Ok("warn".to_owned()), config::log)?,
        })
    }
}

impl StoreSubcommand {
    fn task(self) -> store::Task {
        let (data_dir, json, action) = match self {
            Self::Check(StoreCheck { data_dir, json }) => (data_dir, json, store::Action::Check),
            Self::Dump(StoreDump { data_dir, json }) => (data_dir, json, store::Action::Dump),
            Self::Backup(StoreBackup { data_dir, out, json }) => (data_dir, json, store::Action::Backup { out }),
            Self::Restore(StoreRestore { data_dir, from, accept_loss: accepts_loss, dry_run: is_dry, json }) => {
                (data_dir, json, store::Action::Restore(crate::node::restore::Wanted { from, accepts_loss, is_dry }))
            }
            Self::Export(StoreExport { data_dir, json }) => (data_dir, json, store::Action::Export),
            Self::Compact(StoreCompact { data_dir, json }) => (data_dir, json, store::Action::Compact),
        };
        store::Task { data_dir, json, action }
    }
}

impl Run {
    fn config(self, variable: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let file = match self.config.clone().or_else(|| variable("SPECTER_CONFIG").map(PathBuf::from)) {
            Some(path) => Layer::read(&path)?,
            None => Layer::default(),
        };
        Config::check(self.layer().or(environment(variable)).or(file))
    }

    fn layer(self) -> Layer {
        let one = |name, value: Option<String>| value.map(|text| Stated::flag(name, text));
        let many = |name, values: Vec<String>| {
            let values: Vec<_> = values.into_iter().map(|text| Stated::flag(name, text)).collect();
            if values.is_empty() { None } else { Some(values) }
        };
        let switch = |name, on: bool| on.then(|| Stated::flag(name, "true"));
        Layer {
            advertise: one("--advertise", self.advertise),
            listen: many("--listen", self.listen),
            listen_tcp: many("--listen-tcp", self.listen_tcp),
            listen_udp: many("--listen-udp", self.listen_udp),
            listen_http: many("--listen-http", self.listen_http),
            join: many("--join", self.join),
            data_dir: one("--data-dir", self.data_dir),
            sync: one("--sync", self.sync),
            cert_dir: one("--cert-dir", self.cert_dir),
            cert_env: switch("--cert-env", self.cert_env),
            apex: many("--apex", self.apex),
            drain: one("--drain", self.drain),
            log: one("--log", self.log),
            log_json: switch("--log-json", self.log_json),
            ..Layer::default()
        }
    }
}

fn environment(variable: impl Fn(&str) -> Option<String>) -> Layer {
    let one = |name| variable(name).map(|text| Stated::variable(name, text));
    let many = |name| {
        variable(name).map(|text| text.split(',').map(|part| Stated::variable(name, part.trim())).collect::<Vec<_>>())
    };
    Layer {
        advertise: one("SPECTER_ADVERTISE"),
        listen: many("SPECTER_LISTEN"),
        listen_tcp: many("SPECTER_LISTEN_TCP"),
        listen_udp: many("SPECTER_LISTEN_UDP"),
        listen_http: many("SPECTER_LISTEN_HTTP"),
        join: many("SPECTER_JOIN"),
        data_dir: one("SPECTER_DATA_DIR"),
        sync: one("SPECTER_SYNC"),
        cert_dir: one("SPECTER_CERT_DIR"),
        cert_env: one("SPECTER_CERT_ENV"),
        apex: many("SPECTER_APEX"),
        drain: one("SPECTER_DRAIN"),
        log: one("SPECTER_LOG"),
        log_json: one("SPECTER_LOG_JSON"),
        ..Layer::default()
    }
}

/// An environment variable that is set to something.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
