//! QUIC endpoints and frames on streams: what moves bytes between machines, and knows nothing of their meaning.
//!
//! | part | does |
//! |---|---|
//! | [`accept`] | accepts QUIC connections, and tells links from other nodes |
//! | [`carried`] | accepts links whose packets come over TLS on TCP |
//! | [`endpoint`] | binds UDP sockets and sets QUIC up for nodes |
//! | [`defer`] | runs QUIC drivers behind the tasks that feed them |
//! | [`framed`] | reads and writes `specter_wire` frames |
//! | [`peers`] | moves packets between nodes |
//! | [`pulse`] | proof of life: whether anything came from the other end |
//! | [`relay`] | keeps connections to other nodes for visitors' streams, and knows which of them live |
//! | `room` | bounds on connections, in all and from one source |

pub mod accept;
pub mod carried;
pub mod defer;
pub mod endpoint;
pub mod framed;
pub mod peers;
pub mod pulse;
pub mod relay;
pub(crate) mod room;
