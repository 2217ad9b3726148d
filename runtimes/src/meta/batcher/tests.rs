#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
use super::*;
use crate::broker::effect::SessionRecord;
use crate::meta::rpc::net::Tokio;
use proptest::prelude::*;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A proposal's id and its clients.
type Proposed = (u64, Vec<String>);

/// Notes what is proposed, answers with the client's name, and fails every `fails`-th proposal.
#[derive(Clone, Default)]
struct Fake {
    fails: usize,
    under_way: Arc<AtomicUsize>,
    most_under_way: Arc<AtomicUsize>,
    proposed: Arc<Mutex<Vec<Proposed>>>,
    gate: Option<Arc<tokio::sync::Semaphore>>,
}

fn client_of(call: &MetaCall) -> String {
    match call {
        MetaCall::OpenSession { record, .. } | MetaCall::PutSession { record } => record.client.clone(),
        MetaCall::DropSession { client } => client.clone(),
    }
}

impl Proposer for Fake {
    async fn propose(&self, id: u64, calls: &[MetaCall]) -> Result<Vec<MetaReply>, String> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        let nth = {
            let mut proposed = self.proposed.lock().unwrap();
            proposed.push((id, calls.iter().map(client_of).collect()));
            proposed.len()
        };
        tokio::task::yield_now().await;
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        if self.fails > 0 && nth.is_multiple_of(self.fails) {
            return Err("as asked".to_owned());
        }
        Ok(calls.iter().map(|call| MetaReply::Opened(Some(record(&client_of(call))))).collect())
    }
}

fn record(client: &str) -> SessionRecord {
    SessionRecord { client: client.to_owned(), expiry_s: 1, subscriptions: Vec::new(), left_unix_s: None }
}

fn open(client: &str) -> MetaCall {
    MetaCall::OpenSession { record: record(client), clean: false, unix_s: 0 }
}

fn on_tokio<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

fn tasks() -> Tasks<Tokio> {
    Tasks::new(Arc::new(|reason| panic!("{reason}")))
}

/// Opens sessions `0..calls`, some of them after a pause, and returns the answers in their order.
async fn opened(client: &MetaClient, calls: usize, pauses: &[usize]) -> Vec<Answer> {
    let mut waiting = Vec::new();
    for n in 0..calls {
        let client = client.clone();
        waiting.push(tokio::spawn(async move { client.call(open(&n.to_string())).await }));
        for _ in 0..pauses[n % pauses.len()] {
            tokio::task::yield_now().await;
        }
    }
    let mut answers = Vec::new();
    for answer in waiting {
        answers.push(answer.await.unwrap());
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn openings_are_gathered_in_order_one_proposal_at_a_time(
        batch in 2u32..12,
        calls in 1usize..120,
        fails in 0usize..5,
        pauses in prop::collection::vec(0usize..6, 1..8),
    ) {
        let fake = Fake { fails, ..Fake::default() };
        let answers = on_tokio(async {
            let (client, inbox) = channel(batch);
            let _open = run(&tasks(), inbox, fake.clone());
            opened(&client, calls, &pauses).await
        });
        let proposed = fake.proposed.lock().unwrap();
        prop_assert_eq!(fake.most_under_way.load(Ordering::SeqCst), 1);
        prop_assert!(proposed.iter().all(|(_, clients)| clients.len() <= batch as usize));
        // Each call was proposed once, in the order in which it came.
        let order: Vec<_> = proposed.iter().flat_map(|(_, clients)| clients.clone()).collect();
        prop_assert_eq!(order, (0..calls).map(|n| n.to_string()).collect::<Vec<_>>());
        for (n, answer) in answers.into_iter().enumerate() {
            let nth = proposed.iter().position(|(_, clients)| clients.contains(&n.to_string())).unwrap();
            let failed = fails > 0 && (nth + 1).is_multiple_of(fails);
            match answer {
                Ok((reply, id)) => {
                    prop_assert!(!failed);
                    prop_assert_eq!(reply, MetaReply::Opened(Some(record(&n.to_string()))));
                    prop_assert_eq!(id, proposed[nth].0);
                    prop_assert!(id & OWN_IDS != 0);
                }
                Err(reason) => prop_assert!(failed && reason == "as asked"),
            }
        }
    }
}

#[test]
fn without_gathering_every_call_is_a_proposal_and_none_waits_for_another() {
    let fake = Fake { gate: Some(Arc::new(tokio::sync::Semaphore::new(0))), ..Fake::default() };
    on_tokio(async {
        let (client, inbox) = channel(1);
        let _open = run(&tasks(), inbox, fake.clone());
        let answers = tokio::spawn(async move { opened(&client, 40, &[0]).await });
        while fake.under_way.load(Ordering::SeqCst) < 40 {
            tokio::task::yield_now().await;
        }
        fake.gate.as_ref().unwrap().add_permits(40);
        assert!(answers.await.unwrap().iter().all(Result::is_ok));
    });
    assert_eq!(fake.proposed.lock().unwrap().len(), 40);
}

#[test]
fn writes_overtake_an_opening_that_is_under_way() {
    let fake = Fake { gate: Some(Arc::new(tokio::sync::Semaphore::new(0))), ..Fake::default() };
    on_tokio(async {
        let (client, inbox) = channel(100);
        let _open = run(&tasks(), inbox, fake.clone());
        let calls =
            [open("a"), MetaCall::PutSession { record: record("b") }, MetaCall::DropSession { client: "c".into() }];
        for call in calls {
            let client = client.clone();
            tokio::spawn(async move { client.call(call).await });
        }
        while fake.under_way.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_full_queue_makes_callers_wait_and_loses_none() {
    let fake = Fake { gate: Some(Arc::new(tokio::sync::Semaphore::new(0))), ..Fake::default() };
    let calls = QUEUE_MAX + 777;
    on_tokio(async {
        let (client, inbox) = channel(2);
        let _open = run(&tasks(), inbox, fake.clone());
        let caller = client.clone();
        let answers = tokio::spawn(async move { opened(&caller, calls, &[0]).await });
        while client.opens.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        // Nothing moves while the one proposal is under way.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!answers.is_finished());
        assert_eq!((client.opens.capacity(), client.opens.max_capacity()), (0, QUEUE_MAX));
        assert_eq!(fake.proposed.lock().unwrap().len(), 1);
        fake.gate.as_ref().unwrap().add_permits(calls);
        let answers = answers.await.unwrap();
        assert!(answers.len() == calls && answers.iter().all(Result::is_ok));
    });
}

#[test]
fn large_sessions_do_not_make_a_proposal_too_large() {
    let fake = Fake::default();
    on_tokio(async {
        let (client, inbox) = channel(100);
        let _open = run(&tasks(), inbox, fake.clone());
        let name = "n".repeat(65_000);
        let calls = (0..99).map(|n| {
            let (client, call) = (client.clone(), open(&format!("{n}{name}")));
            tokio::spawn(async move { client.call(call).await })
        });
        for answer in calls.collect::<Vec<_>>() {
            answer.await.unwrap().unwrap();
        }
    });
    let proposed = fake.proposed.lock().unwrap();
    let bytes = |clients: &Vec<String>| clients.iter().map(String::len).sum::<usize>();
    assert!(proposed.iter().all(|(_, clients)| bytes(clients) <= GATHERED_BYTES_MAX));
    assert!(proposed.len() < 20, "still gathered: {} proposals", proposed.len());
}

#[test]
fn what_came_before_the_end_is_answered_and_what_comes_after_is_refused() {
    let fake = Fake { gate: Some(Arc::new(tokio::sync::Semaphore::new(0))), ..Fake::default() };
    on_tokio(async {
        let tasks = tasks();
        let (client, inbox) = channel(2);
        let open_end = run(&tasks, inbox, fake.clone());
        let caller = client.clone();
        let answers = tokio::spawn(async move { opened(&caller, 9, &[0]).await });
        while client.opens.capacity() > QUEUE_MAX - 7 {
            tokio::task::yield_now().await;
        }
        drop(open_end);
        fake.gate.as_ref().unwrap().add_permits(9);
        assert!(answers.await.unwrap().iter().all(Result::is_ok));
        tasks.end().await.unwrap();
        assert!(client.call(open("late")).await.unwrap_err().contains("has ended"));
    });
}
