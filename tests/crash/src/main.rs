//! `crash`: kills processes of the store, fills their disks, and checks what they had acknowledged.

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use argh::FromArgs;
use crash::{first, full, kill, node, restart};
use specter_server::config::SyncPolicy;

/// Kills processes of Specter's store, fills their disks, and checks what they had acknowledged.
#[derive(FromArgs)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Node(Node),
    Kill(Kill),
    First(First),
    Full(Full),
    FullInside(FullInside),
    Restart(Restart),
}

/// Be the store that is killed: calls on standard input, answers on standard output.
#[derive(FromArgs)]
#[argh(subcommand, name = "node")]
struct Node {
    /// its data directory
    #[argh(positional)]
    data_dir: PathBuf,
    /// its certificates
    #[argh(option)]
    certs: PathBuf,
    /// acknowledge writes before they are on the disk
    #[argh(switch)]
    everysec: bool,
}

/// Kill a store under load.
#[derive(FromArgs)]
#[argh(subcommand, name = "kill")]
struct Kill {
    /// how often
    #[argh(option, default = "1000")]
    rounds: u64,
    /// acknowledge writes before they are on the disk
    #[argh(switch)]
    everysec: bool,
    /// what everything random follows from
    #[argh(option, default = "1")]
    seed: u64,
}

/// Kill the start that makes a data directory.
#[derive(FromArgs)]
#[argh(subcommand, name = "first")]
struct First {
    /// how many directories are made
    #[argh(option, default = "300")]
    directories: u64,
    /// what everything random follows from
    #[argh(option, default = "1")]
    seed: u64,
}

/// Fill a store's disk.
#[derive(FromArgs)]
#[argh(subcommand, name = "full")]
struct Full {
    /// on ext4 in a file, for root, in place of one in memory
    #[argh(switch)]
    ext4: bool,
}

/// The part of `full` that runs where the disk is seen.
#[derive(FromArgs)]
#[argh(subcommand, name = "full-inside")]
struct FullInside {
    /// an empty folder
    #[argh(positional)]
    mount: PathBuf,
    /// on ext4
    #[argh(switch)]
    ext4: bool,
}

/// Tell how long a start takes.
#[derive(FromArgs)]
#[argh(subcommand, name = "restart")]
struct Restart {
    /// on how many keys
    #[argh(option, default = "1_000_000")]
    keys: u64,
    /// acknowledge writes before they are on the disk
    #[argh(switch)]
    everysec: bool,
}

fn main() -> ExitCode {
    match follow(argh::from_env::<Arguments>().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn follow(command: Command) -> Result<(), Box<dyn Error>> {
    let program = std::env::current_exe()?;
    match command {
        Command::Node(Node { data_dir, certs, everysec }) => {
            let sync = if everysec { SyncPolicy::EverySecond } else { SyncPolicy::Always };
            node::run(&data_dir, &certs, sync)?;
        }
        Command::Kill(Kill { rounds, everysec, seed }) => {
            print!("{}", kill::run(&program, kill::Plan { seed, everysec, rounds, at_most: Duration::MAX })?);
        }
        Command::Full(Full { ext4 }) => print!("{}", full::run(&program, kind(ext4))?),
        Command::FullInside(FullInside { mount, ext4 }) => {
            print!("{}", full::inside(&program, &mount, kind(ext4))?);
        }
        Command::Restart(Restart { keys, everysec }) => print!("{}", restart::run(&program, keys, everysec)?),
        Command::First(First { directories, seed }) => print!("{}", first::run(&program, seed, directories)?),
    }
    Ok(())
}

fn kind(ext4: bool) -> full::Kind {
    if ext4 { full::Kind::Ext4 } else { full::Kind::Tmpfs }
}
