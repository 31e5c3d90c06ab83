//! The command line, and the only place that reads the environment. Variables stand in for flags that are not given.

use crate::{
    config::{Config, ConfigError, Tunnel, defaults, valid_host},
    connect::Route,
    target::{Authority, Target, TargetError},
    tls::{Trust, TrustError},
};
use argh::FromArgs;
use std::path::{Path, PathBuf};
use tracing::Level;

/// publishes services behind NAT through Specter's nodes, and connects to services that others publish
#[derive(FromArgs, Debug)]
#[argh(
    example = "Publish what a file says:\n  {command_name} tunnel --config client.yaml\nPublish a local web server for a while:\n  {command_name} http 5173 --apex example.com\nReach a published ssh server:\n  ssh -o ProxyCommand=\"{command_name} connect %h\" user@NAME.example.com",
    note = "Environment: SPECTER_CONFIG, SPECTER_APEX, SPECTER_CA and SPECTER_LOG stand in for --config, --apex, --ca and --log."
)]
pub(crate) struct Args {
    /// print the version
    #[argh(switch)]
    pub(crate) version: bool,

    #[argh(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(crate) enum Command {
    Tunnel(TunnelArgs),
    Http(HttpArgs),
    Tcp(TcpArgs),
    Connect(ConnectArgs),
    Listen(ListenArgs),
    Ls(LsArgs),
    Release(ReleaseArgs),
    Validate(ValidateArgs),
    ConfigExample(ConfigExampleArgs),
}

/// publish the tunnels of a configuration file and keep them published
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "tunnel", example = "{command_name} --config client.yaml")]
pub(crate) struct TunnelArgs {
    /// configuration file; default: $SPECTER_CONFIG, else ~/.config/specter/client.yaml
    #[argh(option, short = 'c')]
    pub(crate) config: Option<PathBuf>,
    /// file of certificates in PEM to trust the nodes by, instead of what the file says
    #[argh(option)]
    pub(crate) ca: Option<PathBuf>,
    /// error, warn, info, debug or trace; default: info
    #[argh(option)]
    pub(crate) log: Option<Level>,
}

/// publish one HTTP service without a file; the hostname is given back at the end
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "http", example = "{command_name} 5173 --apex example.com")]
pub(crate) struct HttpArgs {
    /// PORT, HOST:PORT, or a URL such as https://127.0.0.1:8443 or unix:///run/app.sock
    #[argh(positional)]
    pub(crate) target: String,
    /// take any certificate of an https:// target
    #[argh(switch)]
    pub(crate) insecure: bool,
    /// domain of the nodes, with :PORT if it is not 443; default: $SPECTER_APEX
    #[argh(option)]
    pub(crate) apex: Option<String>,
    /// file of certificates in PEM to trust the nodes by; default: $SPECTER_CA
    #[argh(option)]
    pub(crate) ca: Option<PathBuf>,
    /// error, warn, info, debug or trace; default: info
    #[argh(option)]
    pub(crate) log: Option<Level>,
}

/// publish one TCP service without a file; the hostname is given back at the end
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "tcp", example = "{command_name} 22 --apex example.com")]
pub(crate) struct TcpArgs {
    /// PORT, HOST:PORT or tcp://HOST:PORT
    #[argh(positional)]
    pub(crate) target: String,
    /// domain of the nodes, with :PORT if it is not 443; default: $SPECTER_APEX
    #[argh(option)]
    pub(crate) apex: Option<String>,
    /// file of certificates in PEM to trust the nodes by; default: $SPECTER_CA
    #[argh(option)]
    pub(crate) ca: Option<PathBuf>,
    /// error, warn, info, debug or trace; default: info
    #[argh(option)]
    pub(crate) log: Option<Level>,
}

/// join standard input and output to a tunnel
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "connect",
    example = "ssh -o ProxyCommand=\"{command_name} %h\" user@NAME.example.com",
    error_code(1, "the connection was cut, or something else failed"),
    error_code(2, "the command line is wrong"),
    error_code(3, "no tunnel has that hostname"),
    error_code(4, "the tunnel's client is not connected"),
    error_code(5, "the service behind the tunnel does not take the connection"),
    error_code(6, "the gateway cannot be reached or is not trusted")
)]
pub(crate) struct ConnectArgs {
    /// the tunnel's hostname, with :PORT of the gateway if it is not that of the apex or 443
    #[argh(positional)]
    pub(crate) host: String,
    /// domain and port of the nodes, for hostnames of one word; default: $SPECTER_APEX, else the configuration's
    #[argh(option)]
    pub(crate) apex: Option<String>,
    /// file of certificates in PEM to trust the gateway by; default: $SPECTER_CA, else the configuration's
    #[argh(option)]
    pub(crate) ca: Option<PathBuf>,
    /// error, warn, info, debug or trace; default: warn
    #[argh(option)]
    pub(crate) log: Option<Level>,
}

/// accept TCP connections here and join each to a tunnel
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "listen", example = "{command_name} --listen 127.0.0.1:2222 NAME.example.com")]
pub(crate) struct ListenArgs {
    /// address and port to listen on
    #[argh(option, short = 'l')]
    pub(crate) listen: String,
    /// the tunnel's hostname, with :PORT of the gateway if it is not that of the apex or 443
    #[argh(positional)]
    pub(crate) host: String,
    /// domain and port of the nodes, for hostnames of one word; default: $SPECTER_APEX, else the configuration's
    #[argh(option)]
    pub(crate) apex: Option<String>,
    /// file of certificates in PEM to trust the gateway by; default: $SPECTER_CA, else the configuration's
    #[argh(option)]
    pub(crate) ca: Option<PathBuf>,
    /// error, warn, info, debug or trace; default: info
    #[argh(option)]
    pub(crate) log: Option<Level>,
}

/// list the hostnames that this client owns, and where they lead
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "ls", example = "{command_name} --config client.yaml")]
pub(crate) struct LsArgs {
    /// configuration file; default: $SPECTER_CONFIG, else ~/.config/specter/client.yaml
    #[argh(option, short = 'c')]
    pub(crate) config: Option<PathBuf>,
    /// file of certificates in PEM to trust the nodes by, instead of what the file says
    #[argh(option)]
    pub(crate) ca: Option<PathBuf>,
}

/// give a hostname back for good
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "release", example = "{command_name} overnight-graph-caboose-list-boney")]
pub(crate) struct ReleaseArgs {
    /// the hostname, with or without the apex
    #[argh(positional)]
    pub(crate) hostname: String,
    /// configuration file; default: $SPECTER_CONFIG, else ~/.config/specter/client.yaml
    #[argh(option, short = 'c')]
    pub(crate) config: Option<PathBuf>,
    /// file of certificates in PEM to trust the nodes by, instead of what the file says
    #[argh(option)]
    pub(crate) ca: Option<PathBuf>,
}

/// check a configuration file without connecting anywhere
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "validate", example = "{command_name} --config client.yaml")]
pub(crate) struct ValidateArgs {
    /// configuration file; default: $SPECTER_CONFIG, else ~/.config/specter/client.yaml
    #[argh(option, short = 'c')]
    pub(crate) config: Option<PathBuf>,
}

/// print a commented configuration to start from
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "config-example", example = "{command_name} > client.yaml")]
pub(crate) struct ConfigExampleArgs {}

impl Command {
    /// Which log level was asked for, by flag or variable; else the command's own.
    pub(crate) fn log(&self) -> Level {
        let (flag, default) = match self {
            Self::Tunnel(TunnelArgs { log, .. })
            | Self::Http(HttpArgs { log, .. })
            | Self::Tcp(TcpArgs { log, .. })
            | Self::Listen(ListenArgs { log, .. }) => (*log, Level::INFO),
            Self::Connect(ConnectArgs { log, .. }) => (*log, Level::WARN),
            Self::Ls(_) | Self::Release(_) | Self::Validate(_) | Self::ConfigExample(_) => (None, Level::WARN),
        };
        flag.or_else(|| variable("SPECTER_LOG")?.parse().ok()).unwrap_or(default)
    }
}

/// Why a command line that parses is still wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("no apex is given: use --apex example.com, or set SPECTER_APEX")]
    NoApex,
    #[error("the apex `{text}` {reason}")]
    Apex { text: String, reason: TargetError },
    #[error("the target `{text}` {reason}")]
    Target { text: String, reason: TargetError },
    #[error("`{text}` is not what this command publishes: use `client-lite {command}`")]
    OtherCommand { text: String, command: &'static str },
    #[error("`{text}` names no host: give the tunnel's hostname, with :PORT if the gateway is not on 443")]
    Host { text: String },
    #[error(
        "`{host}` has no apex behind it and none is known: give the full name, use --apex example.com, or set SPECTER_APEX"
    )]
    ShortHost { host: String },
    #[error("no configuration is given and there is no home folder to look in: use --config")]
    NoConfig,
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// The configuration file that a flag, a variable or the home folder names.
pub(crate) fn config_path(flag: Option<PathBuf>) -> Result<PathBuf, UsageError> {
    if let Some(path) = flag.or_else(|| variable("SPECTER_CONFIG").map(PathBuf::from)) {
        return Ok(path);
    }
    let folder = match variable("XDG_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = variable("HOME").or_else(|| variable("USERPROFILE")).ok_or(UsageError::NoConfig)?;
            Path::new(&home).join(".config")
        }
    };
    Ok(folder.join("specter").join("client.yaml"))
}

/// The CA file that a flag or a variable names.
pub(crate) fn ca_file(flag: Option<PathBuf>) -> Option<PathBuf> {
    flag.or_else(|| variable("SPECTER_CA").map(PathBuf::from))
}

/// A configuration of one tunnel to an HTTP service.
pub(crate) fn http_config(args: HttpArgs) -> Result<Config, UsageError> {
    let url = match args.target.parse::<u16>() {
        Ok(port) => format!("http://127.0.0.1:{port}"),
        Err(_) if args.target.contains("://") || args.target.starts_with('\\') => args.target.clone(),
        Err(_) => format!("http://{}", args.target),
    };
    if url.starts_with("tcp:") {
        return Err(UsageError::OtherCommand { text: args.target, command: "tcp" });
    }
    single(&url, args.insecure, args.apex, args.ca)
}

/// A configuration of one tunnel to a TCP service.
pub(crate) fn tcp_config(args: TcpArgs) -> Result<Config, UsageError> {
    let url = match args.target.parse::<u16>() {
        Ok(port) => format!("tcp://127.0.0.1:{port}"),
        Err(_) if args.target.contains("://") => args.target.clone(),
        Err(_) => format!("tcp://{}", args.target),
    };
    if !url.starts_with("tcp:") {
        return Err(UsageError::OtherCommand { text: args.target, command: "http" });
    }
    single(&url, false, args.apex, args.ca)
}

fn single(url: &str, insecure: bool, apex: Option<String>, ca: Option<PathBuf>) -> Result<Config, UsageError> {
    let target = Target::parse(url)
        .and_then(|target| if insecure { target.without_verification() } else { Ok(target) })
        .map_err(|reason| UsageError::Target { text: url.to_owned(), reason })?;
    let apex = apex.or_else(|| variable("SPECTER_APEX")).ok_or(UsageError::NoApex)?;
    let apex = parse_apex(&apex)?;
    let trust = match ca_file(ca) {
        Some(file) => Trust::read_file(&file)?,
        None => Trust::PublicRoots,
    };
    Ok(Config::single(apex, trust, Tunnel::new(target)))
}

/// Where the gateway for a hostname is, and what to trust it by. The configuration serves for what is not given.
pub(crate) fn route(host: &str, apex: Option<String>, ca: Option<PathBuf>) -> Result<Route, UsageError> {
    let apex = apex.or_else(|| variable("SPECTER_APEX")).map(|text| parse_apex(&text)).transpose()?;
    let ca = ca_file(ca).map(|file| Trust::read_file(&file)).transpose()?;
    let config = if apex.is_none() || ca.is_none() { configured() } else { None };
    let (configured_apex, configured_trust) = config.map(|config| (config.apex, config.trust)).unzip();
    let apex = apex.or(configured_apex);
    let trust = ca.or(configured_trust).unwrap_or(Trust::PublicRoots);

    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| UsageError::Host { text: host.to_owned() })?)),
        None => (host, None),
    };
    if !valid_host(name) {
        return Err(UsageError::Host { text: host.to_owned() });
    }
    let name = match (&apex, name.contains('.')) {
        (_, true) => name.to_owned(),
        (Some(apex), false) => format!("{name}.{}", apex.host),
        (None, false) => return Err(UsageError::ShortHost { host: name.to_owned() }),
    };
    let under = |apex: &Authority| name.strip_suffix(&apex.host).is_some_and(|head| head.ends_with('.'));
    let apex_port = apex.filter(under).map(|apex| apex.port);
    let gateway = Authority { host: name, port: port.or(apex_port).unwrap_or(defaults::APEX_PORT) };
    Ok(Route { gateway, trust })
}

/// The user's configuration, if there is a usable one. `connect` works without.
fn configured() -> Option<Config> {
    let path = config_path(None).ok()?;
    match Config::load(&path) {
        Ok(config) => Some(config),
        Err(ConfigError::Missing { .. }) => None,
        Err(error) => {
            tracing::warn!(reason = crate::tunnel::sentence(&error), "the configuration is left aside");
            None
        }
    }
}

fn parse_apex(text: &str) -> Result<Authority, UsageError> {
    Authority::parse(text, Some(defaults::APEX_PORT))
        .map_err(|reason| UsageError::Apex { text: text.to_owned(), reason })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}
