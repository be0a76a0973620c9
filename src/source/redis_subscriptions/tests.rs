//! The order of commands and confirmations, with the real hub at the other end: whatever comes when,
//! a client misses nothing that it is not told of.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::event::{Filter, Payload, Position};
use crate::hub::by_hand::ByHand;
use crate::hub::{Flow, Resume, Signal, StartFrom, Subscriber};

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const LINGER: Duration = Duration::from_secs(10);

fn channel(index: usize) -> Channel {
    Channel::new(CHANNELS[index]).unwrap()
}

/// What a client was told, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Event(usize, u64),
    Gap,
}

/// A client of one channel, over all its connections.
#[derive(Default)]
struct Client {
    channel: usize,
    told: Vec<Told>,
    /// Where it stands.
    at: Option<Position>,
}

#[derive(Clone)]
struct Listener(Arc<Mutex<Client>>);

impl Subscriber for Listener {
    fn receive(&mut self, signal: Signal<'_>, _now: Instant) {
        let mut client = self.0.lock();
        let number = |payload: &Payload| payload.as_str().parse().unwrap();
        match signal {
            Signal::Start(start) => {
                match start.from {
                    StartFrom::Resumed { missed, .. } => {
                        let channel = client.channel;
                        let told = missed.iter().map(|e| Told::Event(channel, number(&e.payload)));
                        client.told.extend(told);
                    }
                    // Nothing was promised before.
                    _ => client.told.push(Told::Gap),
                }
                client.at = Some(start.position);
            }
            Signal::Event(event) => {
                let told = Told::Event(client.channel, number(&event.payload));
                client.told.push(told);
                client.at = Some(event.position);
            }
            Signal::Gap(gap) => {
                client.told.push(Told::Gap);
                client.at = Some(gap.position);
            }
            _ => {}
        }
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn flush(&mut self, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn backlog(&self) -> usize {
        0
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// What Redis has sent and the source has not read.
enum Sent {
    Message(Channel, u64),
    Subscribed(Channel),
}

/// What the source has said and the hub has not heard.
enum Said {
    Event(Channel, u64),
    Live(Vec<Live>),
    Lost,
    Connected,
}

/// A command on its way.
struct Command {
    step: Step,
    /// Whether Redis has run it; then its answer is on the way.
    ran: bool,
}

/// An opening on its way: what it waits for, and who it is.
type Opening = (tokio::sync::oneshot::Receiver<crate::hub::Covered>, Arc<Mutex<Client>>);

struct World {
    hub: ByHand,
    subscriptions: Subscriptions,
    command: Option<Command>,
    /// What Redis has this connection subscribed to.
    subscribed: BTreeSet<Channel>,
    sent: VecDeque<Sent>,
    said: VecDeque<Said>,
    published: BTreeMap<Channel, Vec<u64>>,
    clients: Vec<Arc<Mutex<Client>>>,
    openings: Vec<Opening>,
    listening: Vec<(usize, Arc<Mutex<Client>>)>,
}

impl World {
    fn new() -> Self {
        let mut hub = ByHand::new(LINGER);
        hub.connected();
        Self {
            hub,
            subscriptions: Subscriptions::default(),
            command: None,
            subscribed: BTreeSet::new(),
            sent: VecDeque::new(),
            said: VecDeque::new(),
            published: BTreeMap::new(),
            clients: Vec::new(),
            openings: Vec::new(),
            listening: Vec::new(),
        }
    }

    fn publish(&mut self, channel: Channel) {
        let numbers = self.published.entry(channel.clone()).or_default();
        let number = numbers.len() as u64;
        numbers.push(number);
        if self.subscribed.contains(&channel) {
            self.sent.push_back(Sent::Message(channel, number));
        }
    }

    fn send_command(&mut self) {
        if self.command.is_none() {
            self.command = self.subscriptions.next().map(|step| Command { step, ran: false });
        }
    }

    fn redis_runs(&mut self) {
        let Some(command) = self.command.as_mut().filter(|command| !command.ran) else { return };
        command.ran = true;
        match &command.step {
            Step::Subscribe(channels) => {
                self.subscribed.extend(channels.iter().cloned());
                self.sent.extend(channels.iter().cloned().map(Sent::Subscribed));
            }
            Step::Unsubscribe(channels) => {
                self.subscribed.retain(|channel| !channels.contains(channel));
            }
        }
    }

    fn answer_arrives(&mut self) {
        if let Some(command) = self.command.take_if(|command| command.ran)
            && let Step::Unsubscribe(channels) = command.step
        {
            self.subscriptions.unsubscribed(channels);
        }
    }

    fn source_reads(&mut self) {
        match self.sent.pop_front() {
            Some(Sent::Message(channel, number)) => {
                self.said.push_back(Said::Event(channel, number));
            }
            Some(Sent::Subscribed(channel)) => {
                let live = self.subscriptions.subscribed(vec![channel]);
                self.said.push_back(Said::Live(live));
            }
            None => {}
        }
    }

    fn source_follows(&mut self) {
        let live = self.subscriptions.follow(self.hub.demand.changes());
        self.said.push_back(Said::Live(live));
    }

    fn hub_hears(&mut self) {
        match self.said.pop_front() {
            Some(Said::Event(channel, number)) => {
                let payload = Payload::parse(number.to_string().as_bytes(), 20).unwrap();
                self.hub.publish(channel, payload);
            }
            Some(Said::Live(live)) => {
                let live = live.into_iter().map(|live| (live.channel, live.ticket));
                self.hub.live(&live.collect::<Vec<_>>());
            }
            Some(Said::Lost) => self.hub.lost(),
            Some(Said::Connected) => self.hub.connected(),
            None => {}
        }
    }

    fn lose(&mut self) {
        self.subscribed.clear();
        self.sent.clear();
        self.command = None;
        self.subscriptions.lost();
        self.said.extend([Said::Lost, Said::Connected]);
    }

    fn open(&mut self, client: Arc<Mutex<Client>>) {
        let filters = Arc::from([Filter::Exact(channel(client.lock().channel))]);
        self.openings.push((self.hub.cover(&filters), client));
    }

    /// One that waits is let in, whether it was answered or has lost its patience.
    fn arrive(&mut self, which: usize) {
        if self.openings.is_empty() {
            return;
        }
        let (_, client) = self.openings.remove(which % self.openings.len());
        let (filters, resume) = {
            let client = client.lock();
            let filters: Arc<[Filter]> = Arc::from([Filter::Exact(channel(client.channel))]);
            (filters, client.at.map_or(Resume::Fresh, Resume::At))
        };
        let listener = Listener(Arc::clone(&client));
        let number = self.hub.arrive(Box::new(listener), filters, resume);
        self.listening.push((number, client));
    }

    fn leave(&mut self, which: usize, comes_back: bool) {
        if self.listening.is_empty() {
            return;
        }
        let (number, client) = self.listening.remove(which % self.listening.len());
        self.hub.depart(number);
        if comes_back {
            self.open(client);
        }
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.source_follows();
            self.send_command();
            self.redis_runs();
            self.answer_arrives();
            while !self.sent.is_empty() {
                self.source_reads();
            }
            while !self.said.is_empty() {
                self.hub_hears();
            }
        }
    }

    /// Whoever is told two events without a gap between them has missed none between them.
    fn check(&self) -> Result<(), TestCaseError> {
        for client in &self.clients {
            let client = client.lock();
            let mut last = None;
            for told in &client.told {
                match (last, told) {
                    (Some(before), Told::Event(_, n)) => {
                        prop_assert_eq!(*n, before + 1, "{:?}", &client.told);
                        last = Some(*n);
                    }
                    (None, Told::Event(_, n)) => last = Some(*n),
                    (_, Told::Gap) => last = None,
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Move {
    Publish(usize),
    Open(usize),
    Arrive(usize),
    Leave(usize, bool),
    Pass(u64),
    Lose,
    Send,
    RedisRuns,
    Answer,
    Read,
    Follow,
    Hear,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => (0..CHANNELS.len()).prop_map(Move::Publish),
        2 => (0..CHANNELS.len()).prop_map(Move::Open),
        3 => (0_usize..8).prop_map(Move::Arrive),
        2 => (0_usize..8, any::<bool>()).prop_map(|(which, back)| Move::Leave(which, back)),
        2 => (1_u64..15).prop_map(Move::Pass),
        1 => Just(Move::Lose),
        4 => Just(Move::Send),
        4 => Just(Move::RedisRuns),
        4 => Just(Move::Answer),
        8 => Just(Move::Read),
        4 => Just(Move::Follow),
        8 => Just(Move::Hear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_missed_in_silence(moves in prop::collection::vec(moves(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let world = Rc::new(RefCell::new(World::new()));
        let checked = runtime.block_on(async {
            for one in moves {
                if let Move::Pass(seconds) = one {
                    tokio::time::advance(Duration::from_secs(seconds)).await;
                }
                let world = &mut *world.borrow_mut();
                match one {
                    Move::Publish(index) => world.publish(channel(index)),
                    Move::Open(index) => {
                        let client = Client { channel: index, ..Client::default() };
                        let client = Arc::new(Mutex::new(client));
                        world.clients.push(Arc::clone(&client));
                        world.open(client);
                    }
                    Move::Arrive(which) => world.arrive(which),
                    Move::Leave(which, back) => world.leave(which, back),
                    Move::Pass(_) => world.hub.expire(),
                    Move::Lose => world.lose(),
                    Move::Send => world.send_command(),
                    Move::RedisRuns => world.redis_runs(),
                    Move::Answer => world.answer_arrives(),
                    Move::Read => world.source_reads(),
                    Move::Follow => world.source_follows(),
                    Move::Hear => world.hub_hears(),
                }
            }
            let world = &mut *world.borrow_mut();
            world.settle();
            world.check()?;
            // Whoever listens now hears what comes now.
            for index in 0..CHANNELS.len() {
                world.publish(channel(index));
            }
            world.settle();
            world.check()?;
            for (_, client) in &world.listening {
                let client = client.lock();
                let number = world.published[&channel(client.channel)].len() as u64 - 1;
                prop_assert_eq!(client.told.last(), Some(&Told::Event(client.channel, number)));
            }
            Ok(())
        });
        checked?;
    }
}
