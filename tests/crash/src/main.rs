//! `crash`: kills processes of the store, fills their disks, and checks what they had acknowledged.

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use argh::FromArgs;
use crash::{first, kill, node};

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
}

/// Kill a store under load.
#[derive(FromArgs)]
#[argh(subcommand, name = "kill")]
struct Kill {
    /// how often
    #[argh(option, default = "1000")]
    rounds: u64,
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
        Command::Node(Node { data_dir, certs }) => node::run(&data_dir, &certs)?,
        Command::Kill(Kill { rounds, seed }) => {
            print!("{}", kill::run(&program, kill::Plan { seed, rounds, at_most: Duration::MAX })?);
        }
        Command::First(First { directories, seed }) => print!("{}", first::run(&program, seed, directories)?),
    }
    Ok(())
}
