//! Requests on their way out, and their frames.

use super::Session;
use crate::config::{self, Host};
use heapless::Vec as BoundedVec;
use specter_wire::{
    codec::{self, FrameError},
    link::{ClientFrame, HostHeader, Request, Tunnel},
    name::Hostname,
};

/// A request. Tunnels are named by their place in the configuration.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Message {
    Hello,
    Register { public_key: [u8; 32], signature: [u8; 64], counter: u64 },
    Renew,
    Hostnames { after: String },
    Claim { count: u8 },
    Publish { tunnels: Vec<usize> },
    Unpublish { tunnels: Vec<usize> },
    Pong { nonce: u64 },
}

impl Session {
    /// Writes a message as one frame.
    pub(crate) fn encode<'b>(&self, id: u32, message: &Message, buffer: &'b mut [u8]) -> Result<&'b [u8], FrameError> {
        let names;
        let request = match message {
            Message::Hello => Request::Hello { instance: self.instance, agent: AGENT },
            Message::Register { public_key, signature, counter } => {
                Request::Register { public_key, signature, counter: *counter }
            }
            Message::Renew => Request::Renew,
            Message::Hostnames { after } => Request::Hostnames { after },
            Message::Claim { count } => Request::Claim { count: *count },
            Message::Pong { nonce } => Request::Pong { nonce: *nonce },
            Message::Publish { tunnels } => {
                names = tunnels.iter().map(|index| Some((*index, self.wire_name(*index)?))).collect::<Vec<_>>();
                let mut batch = BoundedVec::new();
                for (index, name) in names.iter().flatten() {
                    batch.push(self.wire_tunnel(*index, name)).map_err(|_| FrameError::Buffer)?;
                }
                Request::Publish { tunnels: batch }
            }
            Message::Unpublish { tunnels } => {
                names = tunnels.iter().map(|index| Some((*index, self.wire_name(*index)?))).collect::<Vec<_>>();
                Request::Unpublish { hostnames: names.iter().flatten().map(|(_, name)| name.as_str()).collect() }
            }
        };
        codec::encode(&ClientFrame { id, request }, buffer)
    }

    fn wire_tunnel<'a>(&'a self, index: usize, name: &'a Hostname) -> Tunnel<'a> {
        let config::Tunnel { host, target, header_timeout_ms, .. } = &self.tunnels[index];
        let host = match host {
            Host::Hostname => HostHeader::Hostname,
            Host::Fixed(text) => HostHeader::Fixed(text),
        };
        Tunnel { hostname: name.as_str(), carries: target.carries(), host, header_timeout_ms: *header_timeout_ms }
    }
}

/// What the node's log calls this program.
pub(crate) const AGENT: &str = concat!("client-lite/", env!("CARGO_PKG_VERSION"));
