//! Several nodes in this process: visitors of each reach clients that are linked to others, also when nodes die.

mod clients;
mod cluster;
mod hostile;
mod visits;
