//! Pure: in which order the links that serve a hostname are tried.

use specter_wire::id::LinkId;

/// What is known of a link when a visitor comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) link: LinkId,
    pub(super) suspect: bool,
}

/// Indices of the candidates in the order to try them: trusted links first, beginning with another one each `turn` so
/// that visitors spread over them, then the suspect ones, newest first.
pub(super) fn order(candidates: &[Candidate], turn: usize) -> Vec<usize> {
    let (mut trusted, mut suspect): (Vec<usize>, Vec<usize>) =
        (0..candidates.len()).partition(|index| !candidates[*index].suspect);
    if !trusted.is_empty() {
        let start = turn % trusted.len();
        trusted.rotate_left(start);
    }
    suspect.sort_by_key(|index| std::cmp::Reverse(candidates[*index].link));
    trusted.extend(suspect);
    trusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(suspects: &[bool]) -> Vec<Candidate> {
        suspects.iter().enumerate().map(|(id, &suspect)| Candidate { link: LinkId(id as u64), suspect }).collect()
    }

    #[test]
    fn visitors_take_turns_over_trusted_links() {
        let links = candidates(&[false, false, false]);
        assert_eq!(order(&links, 0), [0, 1, 2]);
        assert_eq!(order(&links, 1), [1, 2, 0]);
        assert_eq!(order(&links, usize::MAX)[0], usize::MAX % 3);
    }

    #[test]
    fn suspect_links_come_last_and_newest_first() {
        assert_eq!(order(&candidates(&[true, false, true]), 4), [1, 2, 0]);
        assert_eq!(order(&candidates(&[true, true]), 1), [1, 0]);
        assert!(order(&[], 3).is_empty());
    }
}
