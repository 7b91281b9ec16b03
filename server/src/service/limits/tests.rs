//! Who gets in, and who has to go for it.

use super::*;

pub fn limits() -> Limits {
    Limits {
        connections: 6,
        connections_per_peer: 5,
        streams: 8,
        header_bytes: 1 << 14,
        request_memory: 1000,
        first_request: Duration::from_secs(1),
        request_timeout: Duration::from_secs(2),
        call_timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(20),
        control_frames: 10,
    }
}

fn peer(address: &str) -> Peer {
    Peer::from(address.parse::<SocketAddr>().unwrap())
}

#[test]
fn addresses_are_counted_by_who_can_choose_them() {
    assert_eq!(peer("10.0.0.1:1"), peer("[::ffff:10.0.0.1]:2"));
    assert_eq!(peer("[2001:db8::1]:1"), peer("[2001:db8::ffff:1:2:3]:1"));
    assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8:0:1::1]:1"));
}

#[test]
fn a_full_house_takes_from_those_who_are_silent_and_from_who_holds_most() {
    let house = House::new(limits());
    let (a, b, c) = (peer("10.0.0.1:1"), peer("10.0.0.2:1"), peer("10.0.0.3:1"));
    let busy = |peer| {
        let stay = house.admit(peer).unwrap();
        let call = stay.guest().call();
        stay.guest().let_in(true);
        (stay, call)
    };
    let mut held: Vec<_> = (0..5).map(|_| busy(a)).collect();
    assert_eq!(house.admit(a).unwrap_err(), Refusal::Peer, "nobody of it is silent");
    let silent = house.admit(b).unwrap();
    assert_eq!((house.guests(), silent.guest().is_cut()), (6, None));
    // Full: the largest address has nobody silent, b's own silent one goes.
    held.push(busy(b));
    assert_eq!((house.guests(), silent.guest().is_cut()), (6, Some(Refusal::Evicted)));
    drop(silent);
    assert_eq!(house.guests(), 6, "it had left the count already");
    // Full of calls: a holds 5 of 6, so its newest makes room for c.
    let newest = held.remove(4);
    held.push(busy(c));
    assert_eq!(newest.0.guest().is_cut(), Some(Refusal::Evicted));
    // b gets one more at a's cost (4 > 1 + 1), then (3 > 2 + 1) is false.
    held.push(busy(b));
    assert_eq!(house.admit(b).unwrap_err(), Refusal::Full);
    drop((held, newest));
    assert_eq!((house.guests(), house.rooms().peers.len()), (0, 0));
}

#[test]
fn strangers_go_before_those_who_work() {
    let house = House::new(limits());
    let working: Vec<Stay> = (0..4).map(|_| house.admit(peer("10.0.0.1:1")).unwrap()).collect();
    working.iter().for_each(|stay| stay.guest().let_in(true));
    // Of one address each; a look at the health is no work, and a call that the gate refuses is none.
    let strangers = [house.admit(peer("10.0.0.2:1")).unwrap(), house.admit(peer("10.0.0.3:1")).unwrap()];
    strangers[0].guest().let_in(false);
    let call = strangers[1].guest().call();
    let new = [house.admit(peer("10.0.0.4:1")).unwrap(), house.admit(peer("10.0.0.5:1")).unwrap()];
    assert!(working.iter().all(|stay| stay.guest().is_cut().is_none()));
    assert!(strangers.iter().all(|stay| stay.guest().is_cut() == Some(Refusal::Evicted)));
    assert_eq!((house.guests(), house.rooms().silent.len()), (6, 2));
    drop((call, strangers, new, working));
    assert_eq!((house.guests(), house.rooms().silent.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_feels_other_limits_at_once() {
    let house = House::new(Limits { first_request: Duration::from_secs(3600), ..limits() });
    let stay = house.admit(Peer::Local).unwrap();
    let mut over = Box::pin(stay.guest().over(None));
    assert!(futures_util::FutureExt::now_or_never(&mut over).is_none());
    house.set_limits(Limits { first_request: Duration::ZERO, ..limits() });
    assert_eq!(futures_util::FutureExt::now_or_never(&mut over), Some(Refusal::Slow));
}

#[test]
fn an_address_at_its_limit_loses_its_oldest_silent_connection() {
    let house = House::new(limits());
    let a = peer("10.0.0.1:1");
    let silent: Vec<Stay> = (0..5).map(|_| house.admit(a).unwrap()).collect();
    let more = house.admit(a).unwrap();
    let cut: Vec<bool> = silent.iter().map(|stay| stay.guest().is_cut().is_some()).collect();
    assert_eq!((house.guests(), cut), (5, vec![true, false, false, false, false]));
    drop(more);
}

#[test]
fn requests_hold_no_more_than_they_may_and_an_address_half_of_it() {
    let house = House::new(limits());
    let (a, b) = (house.admit(peer("10.0.0.1:1")).unwrap(), house.admit(peer("10.0.0.2:1")).unwrap());
    let mut first = a.guest().charge(400).unwrap();
    assert!(a.guest().charge(101).is_none() && !first.grow(101) && first.grow(100));
    let second = b.guest().charge(500).unwrap();
    assert!(b.guest().charge(1).is_none());
    assert_eq!(house.request_bytes(), 1000);
    drop((a, b));
    assert_eq!((house.guests(), house.request_bytes()), (0, 1000), "bytes outlive the connection");
    drop((first, second));
    assert_eq!((house.request_bytes(), house.rooms().peers.len()), (0, 0));
}
