//! What users see, area by area. One binary, so that the programs are built and the tests linked once.

mod client; // configuration files, identities, reconnecting
mod cluster; // several nodes: joining, status, draining, `dev --nodes`
mod crash; // nodes that are killed
mod dev; // the first command of the README
mod failover; // nodes, clients and wires that fail under load; no times, which `bench failover` measures
mod failures; // what a visitor sees when something behind the gateway fails
mod fallback; // links over TCP, where no UDP gets through
mod forwarding; // what a target learns of its visitor
mod http; // pages, bodies, protocols
mod node; // command line, configuration, garbage on ports
mod relay; // visitors of nodes that the client is not linked to
mod smuggling; // requests that two readers could understand differently
mod streams; // events, WebSocket, gRPC
mod targets; // https, Unix sockets, nginx
mod tcp; // connect, ssh, netcat, raw TLS
