//! Requests and answers at their limits.

use super::*;
use crate::service::limits::{House, Peer, tests::limits};
use futures_util::StreamExt;
use http_body_util::StreamBody;
use std::convert::Infallible;

fn body(frames: &[usize]) -> impl Body<Data = Bytes, Error = Infallible> + use<> {
    let frames: Vec<_> = frames.iter().map(|n| Ok(Frame::data(Bytes::from(vec![7; *n])))).collect();
    StreamBody::new(futures_util::stream::iter(frames))
}

#[tokio::test(start_paused = true)]
async fn a_request_is_bounded_in_bytes_and_time() {
    let house = House::new(crate::service::Limits { request_memory: 4 << 20, ..limits() });
    let stay = house.admit(Peer::Local).unwrap();
    let mut charge = stay.guest().charge(0).unwrap();
    let within = Duration::from_secs(20);
    for frames in [vec![], vec![5], vec![3, 4, 5], vec![0, 3, 0, 4]] {
        let all = gather(body(&frames), &mut charge, within).await.unwrap();
        assert_eq!(all, vec![7; frames.iter().sum()]);
        assert_eq!(house.request_bytes(), all.len());
        charge.clear();
    }
    let large = gather(body(&[MAX_BODY, 1]), &mut charge, within).await.unwrap_err();
    assert_eq!(large.code(), tonic::Code::ResourceExhausted);
    charge.clear();
    let others = stay.guest().charge(2 << 20).unwrap();
    let crowd = gather(body(&[1]), &mut charge, within).await.unwrap_err();
    assert!(crowd.message().contains("all the memory"), "{crowd}");
    drop(others);
    let endless = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let late = gather(endless, &mut charge, within).await.unwrap_err();
    assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_counted_and_ends_when_there_is_no_room() {
    let house = House::new(limits());
    let stay = house.admit(Peer::Local).unwrap();
    let answer = |frames: &[usize]| {
        let charge = stay.guest().charge(0).unwrap();
        Answer::new(tonic::body::Body::new(body(frames)), stay.guest().call(), Some(charge))
    };
    let mut first = answer(&[300, 200]);
    for bytes in [300, 200] {
        let frame = first.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().len(), bytes);
        assert_eq!(house.request_bytes(), bytes);
    }
    let refused = answer(&[301]).frame().await.unwrap().unwrap();
    assert_eq!(refused.trailers_ref().unwrap()["grpc-status"], "8");
    let mut told = answer(&[301]).carried_out();
    assert_eq!(told.frame().await.unwrap().unwrap().into_data().unwrap().len(), 301);
    assert_eq!(house.request_bytes(), 501, "over what one address may hold");
    assert!(stay.guest().charge(1).is_none(), "what is new waits");
    drop(told);
    assert!(first.frame().await.is_none());
    assert_eq!(house.request_bytes(), 0);
}

#[tokio::test]
async fn what_a_call_held_is_enough_for_an_answer_of_its_size() {
    let house = House::new(limits());
    let (stay, other) = (house.admit(Peer::Local).unwrap(), house.admit(Peer::V6([1; 4])).unwrap());
    let charge = stay.guest().charge(400).unwrap();
    let _others = (other.guest().charge(500).unwrap(), stay.guest().charge(100).unwrap());
    let body = tonic::body::Body::new(body(&[400, 300]));
    let mut answer = Answer::new(body, stay.guest().call(), Some(charge));
    for bytes in [400, 300] {
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap().len(), bytes);
        assert_eq!(house.request_bytes(), 600 + bytes);
    }
    drop(answer);
}

#[tokio::test]
async fn an_answer_goes_out_in_pieces_and_is_counted_until_the_last_one_is_taken() {
    let house = House::new(crate::service::Limits { request_memory: 1 << 20, ..limits() });
    let stay = house.admit(Peer::Local).unwrap();
    let charge = stay.guest().charge(5).unwrap();
    let body = tonic::body::Body::new(body(&[3 * PIECE + 1]));
    let mut answer = Answer::new(body, stay.guest().call(), Some(charge));
    for bytes in [PIECE, PIECE, PIECE, 1] {
        assert!(!answer.is_end_stream());
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), vec![7; bytes]);
        assert_eq!(house.request_bytes(), 3 * PIECE + 1);
    }
    assert!(answer.frame().await.is_none());
    assert_eq!(house.request_bytes(), 0);
}

#[tokio::test]
async fn messages_that_go_both_ways_are_counted() {
    let house = House::new(crate::service::Limits { request_memory: 1 << 20, ..limits() });
    let stay = house.admit(Peer::Local).unwrap();
    let charge = stay.guest().charge(0).unwrap();
    let mut timed = Timed::new(Box::pin(body(&[60_000, 5_000, 1_000])), charge, Duration::from_secs(20));
    for all in [60_000, 65_000] {
        timed.frame().await.unwrap().unwrap();
        assert_eq!(house.request_bytes(), all);
    }
    assert!(timed.frame().await.unwrap().unwrap_err().to_string().contains("65536"));
    drop(timed);
    assert_eq!(house.request_bytes(), 0);
}

#[tokio::test]
async fn a_watcher_of_the_health_is_sent_home_after_the_last_word() {
    let word = |word: u8| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, word])));
    let words = futures_util::stream::iter([word(1), word(2)]).chain(futures_util::stream::pending());
    let mut watched = Watched::new(tonic::body::Body::new(StreamBody::new(words)));
    for last in [1, 2] {
        let frame = watched.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().last(), Some(&last));
    }
    let end = watched.frame().await.unwrap().unwrap();
    assert_eq!(end.trailers_ref().unwrap()["grpc-status"], "14");
    assert!(watched.frame().await.is_none());
}
