//! Pure: in which order the ways to a target are tried.
//!
//! A link of this node comes first: nothing is nearer. Then other nodes, the nearest first, then what is not known, then
//! what may be dead.

use crate::transport::relay::Sight;
use std::time::Duration;

/// What is known of another node that has a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) sight: Sight,
    /// It said a moment ago that it has no link for the name.
    pub(super) missed: bool,
}

/// Nodes that are farther than the nearest by no more than this, or by a quarter, are as good: visitors spread over them. No
/// visitor notices it, and a busy machine answers no more evenly.
const AS_GOOD: Duration = Duration::from_millis(5);

/// Indices of the candidates in the order to try them: those that are not suspect, and behind them the rest. `turn` is
/// another number for each visitor.
pub(super) fn order(candidates: &[Candidate], turn: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut good, mut rest): (Vec<usize>, Vec<usize>) =
        (0..candidates.len()).partition(|index| !candidates[*index].missed && !candidates[*index].sight.is_suspect);
    let rtt = |index: &usize| candidates[*index].sight.rtt.unwrap_or(Duration::MAX);
    good.sort_by_key(rtt);
    let nearest = good.first().map_or(Duration::MAX, rtt);
    let bound = nearest.saturating_add(AS_GOOD.max(nearest / 4));
    let as_good = good.iter().filter(|index| rtt(index) <= bound).count();
    if as_good > 1 {
        good[..as_good].rotate_left(turn % as_good);
    }
    // A node that lives and has no link is asked in vain at little cost; one that is dead is not.
    rest.sort_by_key(|index| (candidates[*index].sight.is_suspect, rtt(index)));
    (good, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Candidate {
        Candidate { sight: Sight { rtt: Some(Duration::from_millis(ms)), ..Sight::default() }, missed: false }
    }

    fn suspect(mut candidate: Candidate) -> Candidate {
        candidate.sight.is_suspect = true;
        candidate
    }

    const UNKNOWN: Candidate =
        Candidate { sight: Sight { rtt: None, is_suspect: false, unreachable: None }, missed: false };

    #[test]
    fn the_nearest_node_is_first_and_an_unknown_one_behind_the_known() {
        assert_eq!(order(&[UNKNOWN, at(80), at(20), at(200)], 7), (vec![2, 1, 3, 0], vec![]));
    }

    #[test]
    fn visitors_spread_over_nodes_that_are_as_near() {
        let nodes = [at(10), at(90), at(11), at(12)];
        let firsts: Vec<usize> = (0..4).map(|turn| order(&nodes, turn).0[0]).collect();
        assert_eq!(firsts, [0, 2, 3, 0]);
        assert_eq!(order(&[UNKNOWN, UNKNOWN], 1).0, [1, 0], "nor is one unknown better than another");
    }

    #[test]
    fn what_may_be_dead_is_last_and_what_has_no_link_before_it() {
        let missed = Candidate { missed: true, ..at(1) };
        assert_eq!(order(&[suspect(at(1)), missed, at(50), suspect(UNKNOWN)], 3), (vec![2], vec![1, 0, 3]));
        assert_eq!(order(&[], 3), (vec![], vec![]));
    }
}
