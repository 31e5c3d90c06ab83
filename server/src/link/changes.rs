//! Hostnames of which this node may serve something else than before: whoever tells other nodes about them looks at each.

use specter_wire::name::Hostname;
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

/// Names that wait to be looked at. Further ones are found by whoever goes through all of them now and then.
const NAMES: usize = 65_536;

/// The names. A name that is noted twice waits once.
#[derive(Debug, Default)]
pub struct Changes {
    names: Mutex<HashSet<Hostname>>,
    noted: Notify,
}

impl Changes {
    /// Notes a name; it never waits.
    pub fn note(&self, hostname: &Hostname) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES && names.insert(hostname.clone()) {
            self.noted.notify_one();
        }
    }

    /// Waits until there are names, and takes all of them.
    ///
    /// # Cancel safety
    /// Safe: no name is lost.
    pub async fn take(&self) -> HashSet<Hostname> {
        loop {
            let names = std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner));
            if !names.is_empty() {
                return names;
            }
            self.noted.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_noted_twice_waits_once_and_there_is_a_bound() {
        let changes = Changes::default();
        for number in 0..NAMES + 9 {
            let hostname = Hostname::parse(&format!("t{number}")).expect("a name");
            changes.note(&hostname);
            changes.note(&hostname);
        }
        assert_eq!(changes.take().await.len(), NAMES);
    }
}
