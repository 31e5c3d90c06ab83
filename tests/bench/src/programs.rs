//! The programs that are measured: built, found, weighed.

use crate::{Outcome, args};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Our own programs.
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) client: PathBuf,
    /// The small build of the client, where it was built.
    pub(crate) lite: Option<PathBuf>,
}

impl Programs {
    /// Builds them as users do, unless they are given.
    pub(crate) async fn build(given: Option<&Path>) -> Outcome<Self> {
        let folder = match given {
            Some(folder) => folder.to_owned(),
            None => {
                cargo(&["--release", "--package", "specter-server", "--package", "client-lite"]).await?;
                cargo(&["--profile", "lite", "--package", "client-lite"]).await?;
                args::target_folder().join("release")
            }
        };
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() { Ok(path) } else { Err(format!("there is no {}", path.display())) }
        };
        let lite = folder.parent().map(|folder| folder.join("lite").join("client-lite"));
        let lite = lite.filter(|path| path.is_file());
        Ok(Self { server: program("specter-server")?, client: program("client-lite")?, lite })
    }
}

async fn cargo(arguments: &[&str]) -> Outcome<()> {
    let status = Command::new(args::cargo()).arg("build").args(arguments).args(["--bins"]).status().await?;
    if status.success() { Ok(()) } else { Err(format!("cargo build {} failed", arguments.join(" ")).into()) }
}

/// A program of somebody else, if it is installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    args::program_folders().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Size of a file.
pub(crate) fn size_kib(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len().div_ceil(1024))
}
