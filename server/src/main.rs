//! The program `specter-server`.

use std::{error::Error, io, process::ExitCode, time::SystemTime};

use specter_server::{
    args::{ArgsError, Command},
    dev,
    identity::pki,
    serve::{end_with_input, print, serve},
    status::{self, recover},
    store,
};

fn main() -> ExitCode {
    match Command::from_process().map_err(Into::into).and_then(follow) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("specter-server: {}", chain(error.as_ref()));
            if error.is::<ArgsError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn follow(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Print(text) => print(&text),
        Command::Run(config) => serve(*config, async |_, _| Ok(std::future::ready(())))?,
        Command::RunWithParent(config) => {
            end_with_input()?;
            serve(*config, async |_, _| Ok(std::future::ready(())))?;
        }
        Command::Dev(options) => dev::dev(&options)?,
        Command::RingStatus(task) => status::run(&task, &mut io::stdout().lock())?,
        Command::RingRecover(task) => recover::run(&task, &mut io::stdout().lock())?,
        Command::Store(task) => store::run(&task, &mut io::stdout().lock())?,
        Command::PkiInit { directory, advertise } => {
            pki::init(&directory, &advertise.host, SystemTime::now())?;
            print(&format!(
                "Made {0}: the cluster's authorities and the certificate of the node at {advertise}.\n\
                 Keep {0}/ca.key safe: whoever has it can add nodes. A node does not need it to run.\n",
                directory.display()
            ));
        }
        Command::PkiNode { directory, out, advertise } => {
            pki::node(&directory, &out, &advertise.host, SystemTime::now())?;
            print(&format!("Made {}: the certificates of the node at {advertise}.\n", out.display()));
        }
    }
    Ok(())
}

/// The error and what it comes from, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
