//! Pure: what a client's control message means, given what was said before on its link.

use super::{Ask, registry::Tunnel};
use specter_wire::{
    error::ErrorCode,
    id::ClientId,
    limits::BATCH,
    link::{ClientFrame, Request, is_agent},
    name::Hostname,
};

/// How far a link has come.
#[derive(Debug)]
pub(crate) enum Session {
    /// Nothing was said. Holds the identity that the certificate proved, if there was one.
    Greeting { certified: Option<ClientId> },
    /// Greeted, and without an identity: it may only register.
    Unregistered { instance: u64 },
    /// Known. Everything is allowed.
    Registered { client: ClientId },
}

/// What the link's task has to do about a message.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Answer the greeting; with a client, enter the link into the registry.
    Welcome { instance: u64, client: Option<ClientId> },
    /// Check the proof, then say so with [`Session::proven`].
    Prove { proof: Proof, instance: u64 },
    /// Issue a certificate for the key of the one that the link showed.
    Renew,
    /// Ask the directory.
    Ask { client: ClientId, ask: Ask },
    /// The client answered a probe.
    Alive { nonce: u64 },
    /// Answer with a refusal and go on.
    Refuse(ErrorCode),
}

/// What a client shows to register.
#[derive(Debug, PartialEq)]
pub(crate) struct Proof {
    pub(crate) public_key: [u8; 32],
    pub(crate) signature: [u8; 64],
    pub(crate) counter: u64,
}

/// The peer does not speak the protocol; its link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("the client sent a request before its greeting")]
    NoGreeting,
    #[error("the client greeted twice")]
    SecondGreeting,
    #[error("the client registered while it was registered")]
    SecondRegistration,
    #[error("the client's request has a field outside its bounds")]
    Bounds,
}

impl Session {
    /// A session whose TLS handshake proved `certified`, or nobody.
    pub(crate) fn new(certified: Option<ClientId>) -> Self {
        Self::Greeting { certified }
    }

    /// Takes one message and says what to do.
    pub(crate) fn handle(&mut self, frame: &ClientFrame<'_>) -> Result<Step, Violation> {
        if frame.id == 0 {
            return Err(Violation::Bounds);
        }
        match (&*self, &frame.request) {
            (&Self::Greeting { certified }, &Request::Hello { instance, agent }) => {
                if !is_agent(agent) {
                    return Err(Violation::Bounds);
                }
                *self = match certified {
                    Some(client) => Self::Registered { client },
                    None => Self::Unregistered { instance },
                };
                Ok(Step::Welcome { instance, client: certified })
            }
            (Self::Greeting { .. }, _) => Err(Violation::NoGreeting),
            (_, Request::Hello { .. }) => Err(Violation::SecondGreeting),

            (&Self::Unregistered { instance }, &Request::Register { public_key, signature, counter }) => {
                let proof = Proof {
                    public_key: public_key.try_into().map_err(|_| Violation::Bounds)?,
                    signature: signature.try_into().map_err(|_| Violation::Bounds)?,
                    counter,
                };
                Ok(Step::Prove { proof, instance })
            }
            (Self::Registered { .. }, Request::Register { .. }) => Err(Violation::SecondRegistration),

            (_, &Request::Pong { nonce }) => Ok(Step::Alive { nonce }),

            (
                Self::Unregistered { .. },
                Request::Renew
                | Request::Hostnames { .. }
                | Request::Claim { .. }
                | Request::Publish { .. }
                | Request::Unpublish { .. }
                | Request::Release { .. },
            ) => Ok(Step::Refuse(ErrorCode::NotRegistered)),

            (Self::Registered { .. }, Request::Renew) => Ok(Step::Renew),
            (&Self::Registered { client }, request) => Ok(match ask(request)? {
                Some(ask) => Step::Ask { client, ask },
                None => Step::Refuse(ErrorCode::Malformed),
            }),
        }
    }

    /// The proof of the last [`Step::Prove`] holds: the link is `client`'s.
    pub(crate) fn proven(&mut self, client: ClientId) {
        *self = Self::Registered { client };
    }
}

/// The directory's part of a request; none for a request that is none of its.
fn ask(request: &Request<'_>) -> Result<Option<Ask>, Violation> {
    let ask = match request {
        Request::Hostnames { after: "" } => Ask::Hostnames { after: None },
        Request::Hostnames { after } => {
            Ask::Hostnames { after: Some(Hostname::parse(after).map_err(|_| Violation::Bounds)?) }
        }
        Request::Claim { count } => {
            let count = usize::from(*count);
            if !(1..=BATCH).contains(&count) {
                return Err(Violation::Bounds);
            }
            Ask::Claim { count }
        }
        Request::Publish { tunnels } => {
            let checked = |tunnel: &specter_wire::link::Tunnel<'_>| {
                let hostname = Hostname::parse(tunnel.hostname).map_err(|_| ErrorCode::Malformed)?;
                Ok((hostname, Tunnel::checked(tunnel).ok_or(ErrorCode::Malformed)?))
            };
            Ask::Publish { tunnels: tunnels.iter().map(checked).collect() }
        }
        Request::Unpublish { hostnames } => Ask::Unpublish { hostnames: parse(hostnames) },
        Request::Release { hostnames } => Ask::Release { hostnames: parse(hostnames) },
        Request::Hello { .. } | Request::Register { .. } | Request::Renew | Request::Pong { .. } => return Ok(None),
    };
    Ok(Some(ask))
}

fn parse(hostnames: &[&str]) -> Vec<Result<Hostname, ErrorCode>> {
    hostnames.iter().map(|text| Hostname::parse(text).map_err(|_| ErrorCode::Malformed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use specter_wire::link::{Carries, HostHeader};

    const CLIENT: ClientId = ClientId([7; 32]);
    const HELLO: Request<'_> = Request::Hello { instance: 5, agent: "client-lite/0.1" };

    fn say<'a>(session: &mut Session, request: Request<'a>) -> Result<Step, Violation> {
        session.handle(&ClientFrame { id: 1, request })
    }

    #[test]
    fn a_certified_client_is_registered_by_its_greeting() {
        let mut session = Session::new(Some(CLIENT));
        assert_eq!(say(&mut session, HELLO), Ok(Step::Welcome { instance: 5, client: Some(CLIENT) }));
        assert_eq!(say(&mut session, Request::Renew), Ok(Step::Renew));
        let ask = Ask::Claim { count: 3 };
        assert_eq!(say(&mut session, Request::Claim { count: 3 }), Ok(Step::Ask { client: CLIENT, ask }));
    }

    #[test]
    fn without_an_identity_only_registration_is_allowed() {
        let mut session = Session::new(None);
        assert_eq!(say(&mut session, HELLO), Ok(Step::Welcome { instance: 5, client: None }));
        let refused = Ok(Step::Refuse(ErrorCode::NotRegistered));
        assert_eq!(say(&mut session, Request::Claim { count: 1 }), refused);
        assert_eq!(say(&mut session, Request::Renew), refused);
        let register = Request::Register { public_key: &[1; 32], signature: &[2; 64], counter: 9 };
        let proof = Proof { public_key: [1; 32], signature: [2; 64], counter: 9 };
        assert_eq!(say(&mut session, register.clone()), Ok(Step::Prove { proof, instance: 5 }));
        session.proven(CLIENT);
        assert_eq!(say(&mut session, register), Err(Violation::SecondRegistration));
        assert!(matches!(say(&mut session, Request::Claim { count: 1 }), Ok(Step::Ask { client: CLIENT, .. })));
    }

    #[test]
    fn the_greeting_comes_first_and_once() {
        let mut session = Session::new(Some(CLIENT));
        assert_eq!(say(&mut session, Request::Renew), Err(Violation::NoGreeting));
        assert!(say(&mut session, HELLO).is_ok());
        assert_eq!(say(&mut session, HELLO), Err(Violation::SecondGreeting));
    }

    #[test]
    fn fields_out_of_bounds_end_the_link() {
        let mut session = Session::new(Some(CLIENT));
        assert_eq!(say(&mut session, Request::Hello { instance: 1, agent: "a\nb" }), Err(Violation::Bounds));
        assert!(say(&mut session, HELLO).is_ok());
        for request in [Request::Claim { count: 0 }, Request::Claim { count: 65 }, Request::Hostnames { after: "a b" }]
        {
            assert_eq!(say(&mut session, request), Err(Violation::Bounds));
        }
        assert_eq!(session.handle(&ClientFrame { id: 0, request: Request::Renew }), Err(Violation::Bounds));
        let mut session = Session::new(None);
        assert!(say(&mut session, HELLO).is_ok());
        let short = Request::Register { public_key: &[1; 31], signature: &[2; 64], counter: 9 };
        assert_eq!(say(&mut session, short), Err(Violation::Bounds));
    }

    #[test]
    fn one_bad_tunnel_does_not_spoil_the_batch() {
        let mut session = Session::new(Some(CLIENT));
        assert!(say(&mut session, HELLO).is_ok());
        let tunnel = |hostname, header_timeout_ms| specter_wire::link::Tunnel {
            hostname,
            carries: Carries::Http,
            host: HostHeader::Hostname,
            header_timeout_ms,
        };
        let tunnels = heapless::Vec::from_iter([tunnel("a", 1), tunnel("b c", 1), tunnel("d", 0)]);
        let Ok(Step::Ask { ask: Ask::Publish { tunnels }, .. }) = say(&mut session, Request::Publish { tunnels })
        else {
            panic!("not asked");
        };
        assert!(tunnels[0].is_ok());
        assert_eq!(tunnels[1], Err(ErrorCode::Malformed));
        assert_eq!(tunnels[2], Err(ErrorCode::Malformed));
    }
}
