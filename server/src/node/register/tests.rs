use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(10);

/// A register with a clock and a sequence of its own.
struct Subject {
    register: Register,
    now: Instant,
    sequence: u64,
}

impl Subject {
    fn new() -> Self {
        Self { register: Register::default(), now: Instant::now(), sequence: 0 }
    }

    fn write(&mut self, write: Write) -> Result<WriteAnswer, Error> {
        let id = OpId(u128::from(self.sequence) + (1 << 64));
        self.write_as(id, write)
    }

    fn write_as(&mut self, id: OpId, write: Write) -> Result<WriteAnswer, Error> {
        self.sequence += 1;
        self.register.apply(self.now, id, write, self.sequence).0
    }

    fn put(&mut self, value: &[u8]) -> Version {
        match self.write(Write::Put { value: value.to_vec(), fence: None }).unwrap() {
            WriteAnswer::Written(version) => version,
            other => panic!("{other:?}"),
        }
    }

    fn acquire(&mut self, owner: &str, nonce: u64) -> Result<Lease, Error> {
        match self.write(Write::Acquire { owner: owner.into(), nonce, ttl: TTL })? {
            WriteAnswer::Leased(lease) => Ok(lease),
            other => panic!("{other:?}"),
        }
    }

    fn fenced_put(&mut self, lease: &str, token: Token) -> Result<WriteAnswer, Error> {
        self.write(Write::Put { value: b"v".to_vec(), fence: Some(Fence { lease: Key::new(lease), token }) })
    }

    fn restart(&mut self) {
        let head = postcard::from_bytes(&postcard::to_stdvec(self.register.head()).unwrap()).unwrap();
        self.register = Register::restore(head, self.register.children().clone(), self.now);
    }
}

#[test]
fn a_swap_needs_the_version_it_expects() {
    let mut subject = Subject::new();
    let swap = |expect, value: Option<&[u8]>| Write::CompareAndSwap { expect, value: value.map(<[u8]>::to_vec) };
    assert_eq!(subject.write(swap(Some(Version(1)), Some(b"a"))), Err(Error::Conflict), "absent");
    subject.write(swap(None, Some(b"a"))).unwrap();
    assert_eq!(subject.write(swap(None, Some(b"b"))), Err(Error::Conflict), "present");
    let version = subject.register.value().unwrap().version;
    subject.put(b"c");
    assert_eq!(subject.write(swap(Some(version), None)), Err(Error::Conflict), "changed since");
    let version = subject.register.value().unwrap().version;
    subject.write(swap(Some(version), None)).unwrap();
    assert_eq!(subject.register.value(), None);
}

#[test]
fn sets_and_leases_leave_the_values_version_alone() {
    let mut subject = Subject::new();
    let version = subject.put(b"a");
    subject.write(Write::Append(b"child".to_vec())).unwrap();
    subject.acquire("me", 1).unwrap();
    assert_eq!(subject.register.value().unwrap().version, version);
    subject.write(Write::Delete).unwrap();
    assert_eq!(subject.register.children().len(), 1, "deleting the value leaves the set");
    assert_eq!(subject.acquire("you", 1), Err(Error::Conflict), "and the lease");
}

#[test]
fn the_same_claim_of_a_lease_gets_the_same_token_and_its_whole_time() {
    let mut subject = Subject::new();
    let lease = subject.acquire("me", 1).unwrap();
    subject.now += TTL - Duration::from_secs(1);
    assert_eq!(subject.acquire("me", 1).unwrap(), lease);
    assert_eq!(subject.acquire("me", 2), Err(Error::Conflict), "another run of the same owner");
    subject.now += TTL - Duration::from_secs(1);
    assert_eq!(subject.acquire("you", 1), Err(Error::Conflict));
    subject.now += Duration::from_secs(1);
    assert!(subject.acquire("you", 1).unwrap().token > lease.token);
    assert_eq!(subject.write(Write::Renew(lease.token)), Err(Error::Expired));
    assert_eq!(subject.write(Write::Release(lease.token)), Err(Error::Expired));
}

#[test]
fn renewal_keeps_a_lease_and_release_frees_it() {
    let mut subject = Subject::new();
    let lease = subject.acquire("me", 1).unwrap();
    for _ in 0..5 {
        subject.now += TTL - Duration::from_millis(1);
        assert_eq!(subject.write(Write::Renew(lease.token)), Ok(WriteAnswer::Leased(lease)));
    }
    subject.write(Write::Release(lease.token)).unwrap();
    assert!(subject.acquire("you", 1).unwrap().token > lease.token);
}

#[test]
fn a_lease_that_ran_out_is_over_for_good_once_anybody_was_told() {
    let mut subject = Subject::new();
    let lease = subject.acquire("me", 1).unwrap();
    subject.now += TTL;
    assert_eq!(subject.write(Write::Renew(lease.token)), Err(Error::Expired));
    subject.restart();
    assert_eq!(subject.write(Write::Renew(lease.token)), Err(Error::Expired));
}

#[test]
fn a_restart_never_shortens_a_lease() {
    let mut subject = Subject::new();
    let lease = subject.acquire("me", 1).unwrap();
    subject.now += TTL - Duration::from_secs(1);
    subject.restart();
    subject.now += TTL - Duration::from_secs(1);
    assert_eq!(subject.acquire("you", 1), Err(Error::Conflict));
    assert_eq!(subject.write(Write::Renew(lease.token)), Ok(WriteAnswer::Leased(lease)));
}

#[test]
fn an_overlong_lease_is_cut() {
    let mut subject = Subject::new();
    let answer = subject.write(Write::Acquire { owner: vec![1], nonce: 0, ttl: Duration::MAX }).unwrap();
    assert!(matches!(answer, WriteAnswer::Leased(Lease { ttl: limits::LEASE_TTL_MAX, .. })));
}

#[test]
fn a_fence_stops_the_earlier_holder_once_the_later_one_wrote() {
    let mut subject = Subject::new();
    let (early, late) = (Token(5), Token(9));
    subject.fenced_put("lease", early).unwrap();
    subject.fenced_put("lease", late).unwrap();
    assert_eq!(subject.fenced_put("lease", early), Err(Error::StaleFence));
    subject.fenced_put("other lease", early).unwrap();
    subject.write(Write::Delete).unwrap();
    subject.restart();
    assert_eq!(subject.fenced_put("lease", early), Err(Error::StaleFence), "deletion and restart forget no fence");
    for number in 2..limits::FENCES {
        subject.fenced_put(&number.to_string(), early).unwrap();
    }
    assert!(matches!(subject.fenced_put("one too many", early), Err(Error::TooLarge { .. })));
}

#[test]
fn a_full_set_takes_no_more_and_says_so() {
    let mut subject = Subject::new();
    for number in 0..limits::CHILDREN {
        assert_eq!(subject.write(Write::Append(number.to_le_bytes().to_vec())), Ok(WriteAnswer::Changed(true)));
    }
    assert!(matches!(subject.write(Write::Append(b"more".to_vec())), Err(Error::TooLarge { .. })));
    assert_eq!(subject.write(Write::Append(0usize.to_le_bytes().to_vec())), Ok(WriteAnswer::Changed(false)));
}

#[test]
fn an_empty_register_is_kept_for_retries_and_then_forgotten() {
    let mut subject = Subject::new();
    subject.put(b"a");
    assert_eq!(subject.register.next_event(), None);
    let id = OpId(1);
    subject.write_as(id, Write::Delete).unwrap();
    assert_eq!(subject.write_as(id, Write::Delete), Ok(WriteAnswer::Changed(true)), "a retry");
    assert!(!subject.register.is_forgettable(subject.now));
    let due = subject.register.next_event().unwrap();
    assert!(subject.register.is_forgettable(due));
    subject.now = due;
    subject.put(b"b");
    assert!(!subject.register.is_forgettable(due + limits::RETRY_WINDOW));
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete,
    Swap { fresh: bool, value: Option<u8> },
    Append(u8),
    Remove(u8),
    Acquire { owner: u8, nonce: u64 },
    Renew,
    Release,
    Wait(u64),
    Restart,
    Repeat,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u8>().prop_map(Step::Put),
        Just(Step::Delete),
        (any::<bool>(), any::<Option<u8>>()).prop_map(|(fresh, value)| Step::Swap { fresh, value }),
        (0..4u8).prop_map(Step::Append),
        (0..4u8).prop_map(Step::Remove),
        (0..3u8, 0..2u64).prop_map(|(owner, nonce)| Step::Acquire { owner, nonce }),
        Just(Step::Renew),
        Just(Step::Release),
        (0..15_000u64).prop_map(Step::Wait),
        Just(Step::Restart),
        Just(Step::Repeat),
    ]
}

proptest! {
    /// The register against the simplest model of each rule: what a value, a set and a lease are.
    #[test]
    fn any_history_keeps_every_promise(steps in prop::collection::vec(step(), 1..80)) {
        let mut subject = Subject::new();
        let (mut value, mut set) = (None::<Vec<u8>>, BTreeSet::new());
        let (mut highest_version, mut highest_token) = (Version(0), Token(0));
        let mut lease: Option<(u8, u64, Lease, Instant)> = None;
        let mut last: Option<(OpId, Write, Result<WriteAnswer, Error>)> = None;
        for (number, step) in (0u128..).zip(steps) {
            let held = lease.filter(|(_, _, _, until)| *until > subject.now);
            let token = lease.map_or(Token(0), |(_, _, lease, _)| lease.token);
            let write = match step.clone() {
                Step::Put(byte) => Write::Put { value: vec![byte], fence: None },
                Step::Delete => Write::Delete,
                Step::Swap { fresh, value } => {
                    let current = subject.register.value().map(|held| held.version);
                    let expect = if fresh { current } else { Some(Version(u64::MAX)) };
                    Write::CompareAndSwap { expect, value: value.map(|byte| vec![byte]) }
                }
                Step::Append(child) => Write::Append(vec![child]),
                Step::Remove(child) => Write::Remove(vec![child]),
                Step::Acquire { owner, nonce } => Write::Acquire { owner: vec![owner], nonce, ttl: TTL },
                Step::Renew => Write::Renew(token),
                Step::Release => Write::Release(token),
                Step::Wait(ms) => {
                    subject.now += Duration::from_millis(ms);
                    continue;
                }
                Step::Restart => {
                    subject.restart();
                    if let Some((.., until)) = &mut lease && held.is_some() {
                        *until = subject.now + TTL;
                    } else if lease.is_some() && subject.register.head().lease.is_some() {
                        // Ran out without anybody being told: it is held again for its whole time.
                        lease = lease.map(|(owner, nonce, lease, _)| (owner, nonce, lease, subject.now + TTL));
                    }
                    continue;
                }
                Step::Repeat => {
                    // Only writes that changed something are remembered, and a lease may run out meanwhile.
                    if let Some((id, write, Ok(answer @ (WriteAnswer::Written(_) | WriteAnswer::Released)))) = last.clone() {
                        let before = subject.register.clone();
                        prop_assert_eq!(subject.write_as(id, write), Ok(answer));
                        prop_assert_eq!(before.head(), subject.register.head());
                    }
                    continue;
                }
            };
            let id = OpId(number);
            let answer = subject.write_as(id, write.clone());
            last = Some((id, write, answer.clone()));
            if let Ok(WriteAnswer::Written(version)) = answer {
                prop_assert!(version > highest_version);
                highest_version = version;
            }
            match step {
                Step::Put(byte) => value = Some(vec![byte]),
                Step::Delete => {
                    prop_assert_eq!(answer, Ok(WriteAnswer::Changed(value.take().is_some())));
                }
                Step::Swap { fresh: true, value: new } => value = new.map(|byte| vec![byte]),
                Step::Swap { fresh: false, .. } => prop_assert_eq!(answer, Err(Error::Conflict)),
                Step::Append(child) => {
                    prop_assert_eq!(answer, Ok(WriteAnswer::Changed(set.insert(vec![child]))));
                }
                Step::Remove(child) => {
                    prop_assert_eq!(answer, Ok(WriteAnswer::Changed(set.remove(&vec![child]))));
                }
                Step::Acquire { owner, nonce } => match held {
                    Some((holder, its_nonce, held, _)) if (holder, its_nonce) == (owner, nonce) => {
                        prop_assert_eq!(answer, Ok(WriteAnswer::Leased(held)));
                        lease = Some((owner, nonce, held, subject.now + TTL));
                    }
                    Some(_) => prop_assert_eq!(answer, Err(Error::Conflict)),
                    None => {
                        let Ok(WriteAnswer::Leased(taken)) = answer else { panic!("{answer:?}") };
                        prop_assert!(taken.token > highest_token);
                        highest_token = taken.token;
                        lease = Some((owner, nonce, taken, subject.now + TTL));
                    }
                },
                Step::Renew => match held {
                    Some((owner, nonce, held, _)) => {
                        prop_assert_eq!(answer, Ok(WriteAnswer::Leased(held)));
                        lease = Some((owner, nonce, held, subject.now + TTL));
                    }
                    None => prop_assert_eq!(answer, Err(Error::Expired)),
                },
                Step::Release => {
                    let expected = if held.is_some() { Ok(WriteAnswer::Released) } else { Err(Error::Expired) };
                    prop_assert_eq!(answer, expected);
                    lease = None;
                }
                Step::Wait(_) | Step::Restart | Step::Repeat => {}
            }
            if held.is_none() && lease.is_some_and(|(_, _, _, until)| until <= subject.now) {
                // Every write ends a lease whose time is up.
                lease = None;
            }
            prop_assert_eq!(subject.register.value().map(|held| &held.value), value.as_ref());
            prop_assert_eq!(subject.register.children(), &set);
        }
    }
}
