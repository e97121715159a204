use uuid::Uuid;

use super::super::frame::HEAD_BYTES;
use super::super::hello::NONCE_BYTES;
use super::*;
use crate::ids::{BrokerId, Incarnation, IncarnationId, StorageId};

fn hello(node: i32, expects: i32) -> Hello {
    let identity = PeerIdentity {
        node: BrokerId(node),
        storage: StorageId(Uuid::from_u128(node as u128)),
        incarnation: Incarnation(3),
        incarnation_id: IncarnationId(Uuid::from_u128(100 + node as u128)),
    };
    Hello { identity, expects: BrokerId(expects), cluster: String::new(), nonce: [node as u8; NONCE_BYTES] }
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text).unwrap())
}

fn frame_of(bytes: &[u8]) -> (FrameKind, Vec<u8>) {
    match frame::next(bytes, 1_000) {
        Ok(frame::Next::Frame(kind, size)) if size + 4 == bytes.len() => (kind, bytes[HEAD_BYTES..].to_vec()),
        other => panic!("{other:?}"),
    }
}

/// How it ends for both, and how often each judged.
fn between(
    (initiator, first): (Handshake, Bytes),
    acceptor: Handshake,
    verdicts: [Result<(), Refusal>; 2],
) -> [Result<PeerIdentity, (bool, Refusal)>; 2] {
    let mut sides = [initiator, acceptor];
    let mut ends = [None, None];
    let (mut on_its_way, mut to) = (Some(first), 1);
    while let Some(bytes) = on_its_way.take() {
        let (kind, payload) = frame_of(&bytes);
        let mut judge = |_: &PeerIdentity| verdicts[to];
        let step = sides[to].received(kind, &payload, &mut judge);
        match step {
            Step::Answer(bytes) => on_its_way = Some(bytes),
            Step::Peer(identity, send) => {
                ends[to] = Some(Ok(identity));
                on_its_way = send;
            }
            Step::Refuse(why, send) => {
                ends[to] = Some(Err((true, why)));
                on_its_way = Some(send);
            }
            Step::Refused(why) => ends[to] = Some(Err((false, why))),
        }
        to = 1 - to;
    }
    ends.map(|end| end.expect("both come to an end"))
}

#[test]
fn two_nodes_of_one_secret_take_one_another_for_who_they_are() {
    for secret in [None, secret("correct horse battery")] {
        let initiator = Handshake::initiate(hello(1, 2), secret.clone());
        let ends = between(initiator, Handshake::accept(hello(2, -1), secret), [Ok(()), Ok(())]);
        assert_eq!(ends, [Ok(hello(2, 1).identity), Ok(hello(1, 2).identity)]);
    }
}

#[test]
fn whoever_refuses_tells_the_other_and_both_know_why() {
    let one = || secret("correct horse battery");
    let with_cluster = |mut hello: Hello, cluster: &str| {
        hello.cluster = cluster.to_owned();
        hello
    };
    let stale = Refusal::Stale(BrokerId(1));
    // Initiator's hello and secret, acceptor's, their judgements; who refuses, and why.
    let table = [
        (
            hello(1, 2),
            one(),
            hello(2, -1),
            secret("another horse here"),
            [Ok(()), Ok(())],
            1,
            Refusal::WrongSecret,
        ),
        (hello(1, 2), None, hello(2, -1), one(), [Ok(()), Ok(())], 1, Refusal::WrongSecret),
        (hello(1, 2), one(), hello(3, -1), one(), [Ok(()), Ok(())], 1, Refusal::OtherNode(BrokerId(3))),
        (
            with_cluster(hello(1, 2), "a"),
            one(),
            with_cluster(hello(2, -1), "b"),
            one(),
            [Ok(()), Ok(())],
            1,
            Refusal::OtherCluster,
        ),
        (hello(1, 2), one(), hello(2, -1), one(), [Ok(()), Err(stale)], 1, stale),
        (hello(1, 2), one(), hello(2, -1), one(), [Err(stale), Ok(())], 0, stale),
    ];
    for (ours, our_secret, theirs, their_secret, verdicts, refuses, why) in table {
        let initiator = Handshake::initiate(ours, our_secret);
        let ends = between(initiator, Handshake::accept(theirs, their_secret), verdicts);
        assert_eq!(ends[refuses], Err((true, why)));
        if refuses == 1 {
            assert_eq!(ends[0], Err((false, why)));
        }
    }
    let known = with_cluster(hello(1, 2), "a");
    let fresh = Handshake::accept(hello(2, -1), one());
    let ends = between(Handshake::initiate(known, one()), fresh, [Ok(()), Ok(())]);
    assert!(ends.iter().all(Result::is_ok), "who knows of no cluster yet may join one");
}

#[test]
fn an_acceptor_that_does_not_know_the_secret_is_not_believed() {
    let (mut initiator, first) = Handshake::initiate(hello(1, 2), secret("correct horse battery"));
    let (_, hello_sent) = frame_of(&first);
    let forged = hello(2, 1).encode();
    let never = &mut |_: &PeerIdentity| panic!("nobody is judged who has proved nothing");
    assert!(matches!(initiator.received(FrameKind::Challenge, &forged, never), Step::Answer(_)));
    let hellos = Hellos { initiator: &hello_sent, acceptor: &forged };
    let proof = hellos.proof(secret("a guess of sixteen").as_ref(), Role::Acceptor);
    let step = initiator.received(FrameKind::Welcome, &proof, never);
    assert!(matches!(step, Step::Refuse(Refusal::WrongSecret, _)));
}

#[test]
fn a_proof_that_is_given_back_or_comes_from_another_connection_proves_nothing() {
    let shared = secret("correct horse battery");
    let (ours, theirs) = (hello(1, 2).encode(), hello(2, 1).encode());
    let hellos = Hellos { initiator: &ours, acceptor: &theirs };
    let proof = hellos.proof(shared.as_ref(), Role::Initiator);
    assert!(hellos.is_proof(shared.as_ref(), Role::Initiator, &proof));
    assert!(!hellos.is_proof(shared.as_ref(), Role::Acceptor, &proof), "reflected");
    let mut other = hello(2, 1);
    other.nonce[31] ^= 1;
    let again = Hellos { initiator: &ours, acceptor: &other.encode() };
    assert!(!again.is_proof(shared.as_ref(), Role::Initiator, &proof), "replayed");
    assert!(!hellos.is_proof(shared.as_ref(), Role::Initiator, &proof[..31]), "cut");
    assert!(!hellos.is_proof(shared.as_ref(), Role::Initiator, b""), "none");
}

#[test]
fn what_is_out_of_turn_damaged_or_newer_is_refused_in_every_state() {
    let never = &mut |_: &PeerIdentity| panic!("nobody is judged who has proved nothing");
    let own = || hello(2, -1).encode().to_vec();
    let mut newer = own();
    newer[5] = 2;
    let mut foreign = own();
    foreign[0] = b'X';
    let mut long = own();
    long.push(0);
    let table: Vec<(FrameKind, Vec<u8>, Refusal)> = vec![
        (FrameKind::Hello, newer, Refusal::Newer(2)),
        (FrameKind::Hello, foreign, Refusal::NotAPeer),
        (FrameKind::Hello, long, Refusal::NotAPeer),
        (FrameKind::Hello, own()[..20].to_vec(), Refusal::NotAPeer),
        (FrameKind::Hello, vec![], Refusal::NotAPeer),
        (FrameKind::Challenge, own(), Refusal::NotAPeer),
        (FrameKind::Proof, vec![0; 32], Refusal::NotAPeer),
        (FrameKind::Welcome, vec![0; 32], Refusal::NotAPeer),
        (FrameKind::Received, vec![0; 8], Refusal::NotAPeer),
        (FrameKind::Messages(frame::MessageKind::Raft), vec![0; 8], Refusal::NotAPeer),
        (FrameKind::Refused, vec![99], Refusal::NotAPeer),
    ];
    for (kind, payload, expected) in table {
        let mut acceptor = Handshake::accept(hello(2, -1), None);
        match acceptor.received(kind, &payload, never) {
            Step::Refuse(why, _) => assert_eq!(why, expected, "{kind:?}"),
            other => panic!("{kind:?}: {other:?}"),
        }
        let after = acceptor.received(FrameKind::Hello, &own(), never);
        assert!(matches!(after, Step::Refuse(Refusal::NotAPeer, _)), "it is over: {after:?}");
    }
}

#[test]
fn hellos_and_refusals_come_out_as_they_went_in() {
    let mut said = hello(7, 8);
    said.cluster = "c".repeat(22);
    assert_eq!(Hello::decode(&said.encode()), Ok(said));
    let all = [
        Refusal::WrongSecret,
        Refusal::OtherCluster,
        Refusal::OtherNode(BrokerId(4)),
        Refusal::UnknownNode(BrokerId(5)),
        Refusal::Duplicate(BrokerId(6)),
        Refusal::Stale(BrokerId(7)),
        Refusal::Newer(2),
        Refusal::NotAPeer,
    ];
    for refusal in all {
        assert_eq!(Refusal::decode(&refusal.encode()), Ok(refusal));
    }
    assert!(Refusal::decode(&[9, 0, 0, 0, 0]).is_err() && Refusal::decode(&[1]).is_err());
}
