//! The commands on the cluster of a running node: `specter-server ring …`.

use std::path::PathBuf;

use argh::FromArgs;

use super::{ArgsError, Command};
use crate::{
    config::{Layer, Stated},
    status::{self, recover},
};

/// Look at the cluster through a running node, and bring back what stands still.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "ring", help_triggers("-h", "--help"))]
pub(super) struct Ring {
    #[argh(subcommand)]
    command: RingSubcommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum RingSubcommand {
    Status(RingStatus),
    Recover(RingRecover),
}

/// Tell what a running node knows: the other nodes, the slots that it keeps, those with too few replicas first, round trips
/// to the other nodes, and its links.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help"),
    example = "{command_name} --data-dir /var/lib/specter"
)]
struct RingStatus {
    /// the node's data directory
    #[argh(option)]
    data_dir: Option<PathBuf>,
    /// the node's configuration file, which names its data directory
    #[argh(option)]
    config: Option<PathBuf>,
    /// write one JSON object
    #[argh(switch)]
    json: bool,
}

/// Tell which slots of a running node stand still because too few of the nodes that keep them live. With --accept-loss, let
/// this node go on alone with them: only if the others are gone for good.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "recover",
    help_triggers("-h", "--help"),
    example = "{command_name} --data-dir /var/lib/specter"
)]
struct RingRecover {
    /// the node's data directory
    #[argh(option)]
    data_dir: Option<PathBuf>,
    /// the node's configuration file, which names its data directory
    #[argh(option)]
    config: Option<PathBuf>,
    /// go on alone: what only the missing nodes have is lost, and they may never come back with their data directories
    #[argh(switch)]
    accept_loss: bool,
    /// write one JSON object
    #[argh(switch)]
    json: bool,
}

impl Ring {
    /// What to ask of which node.
    pub(super) fn command(self, variable: impl Fn(&str) -> Option<String>) -> Result<Command, ArgsError> {
        match self.command {
            RingSubcommand::Status(RingStatus { data_dir, config, json }) => {
                let data_dir = Self::data_dir(data_dir, config, variable)?;
                Ok(Command::RingStatus(status::Task { data_dir, json }))
            }
            RingSubcommand::Recover(RingRecover { data_dir, config, accept_loss, json }) => {
                let data_dir = Self::data_dir(data_dir, config, variable)?;
                Ok(Command::RingRecover(recover::Task { data_dir, json, accept_loss }))
            }
        }
    }

    /// Where to look, by the flags, then the variables, then the file.
    fn data_dir(
        data_dir: Option<PathBuf>,
        config: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<PathBuf, ArgsError> {
        let file = match config.or_else(|| variable("SPECTER_CONFIG").map(PathBuf::from)) {
            Some(path) if data_dir.is_none() => Layer::read(&path)?,
            Some(_) | None => Layer::default(),
        };
        let flag = data_dir.map(|path| path.into_os_string().into_string().unwrap_or_default());
        let stated = Layer { data_dir: flag.map(|text| Stated::flag("--data-dir", text)), ..Layer::default() };
        let data_dir = stated.or(super::environment(variable)).or(file).data_dir.ok_or_else(|| {
            ArgsError::Usage("the node's data directory is not given; name it with --data-dir or --config".to_owned())
        })?;
        Ok(data_dir.path())
    }
}
