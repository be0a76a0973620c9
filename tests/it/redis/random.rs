//! Whatever happens to Redis and to those who listen: every event that a client misses lies behind a
//! gap, or was dropped and told.
//!
//! `SLUICE_TEST_SECONDS` says for how long, `SLUICE_TEST_SEED` repeats what a failure has printed, as
//! far as the machine does the same again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{EventSource, Message, Redis, Relay, TestGateway, wait_for, within};

/// Those of alerts are heard at all times, the others on demand.
const CHANNELS: [&str; 10] =
    ["alerts:0", "alerts:1", "r:0", "r:1", "r:2", "r:3", "r:4", "r:5", "r:6", "r:7"];
/// The one that Redis refuses now and then.
const REFUSED: &str = "r:7";
const CLIENTS: u64 = 8;

/// What has become of each number of a channel; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Published,
    /// In a payload that is not let in.
    Wrong,
    /// Redis did not say.
    Unknown,
}

#[derive(Default)]
struct World {
    fates: Mutex<HashMap<&'static str, Vec<Fate>>>,
    is_over: AtomicBool,
}

impl World {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The newest number of a channel.
    fn newest(&self, channel: &str) -> u64 {
        self.fates.lock().get(channel).map_or(0, |fates| fates.len() as u64)
    }

    fn fate(&self, channel: &str, number: u64) -> Fate {
        self.fates.lock()[channel][usize::try_from(number - 1).unwrap()]
    }

    /// Publishes the next number of a channel.
    async fn publish(&self, redis: &redis::Client, channel: &'static str, fate: Fate) -> bool {
        let number = {
            let mut fates = self.fates.lock();
            let fates = fates.entry(channel).or_default();
            fates.push(fate);
            fates.len()
        };
        let end = if fate == Fate::Wrong { "" } else { "}" };
        let sent = timeout(Duration::from_secs(4), async {
            let mut connection = redis.get_multiplexed_async_connection().await?;
            let publish =
                redis::cmd("PUBLISH").arg(channel).arg(format!("{{\"n\":{number}{end}")).to_owned();
            publish.query_async::<()>(&mut connection).await
        });
        let is_sent = matches!(sent.await, Ok(Ok(())));
        if !is_sent {
            self.fates.lock().get_mut(channel).unwrap()[number - 1] = Fate::Unknown;
        }
        is_sent
    }
}

/// What a client has of a channel.
#[derive(Debug, Clone)]
struct Had {
    /// The newest number there was when the stream was opened for the first time.
    since: u64,
    /// The last number that has come; 0: none.
    last: u64,
    /// When it was told that something may be missing, in milliseconds since 1970. What was published
    /// before is the last state there is, not what comes next.
    gap: Option<i64>,
    /// Whether it was told that something was dropped.
    told: bool,
    /// Whether it missed what was dropped and has not been told.
    owed: bool,
}

struct Client {
    world: Arc<World>,
    had: HashMap<&'static str, Had>,
    events: u64,
    gaps: u64,
}

impl Client {
    fn path(&self) -> String {
        let channels: Vec<_> =
            self.had.keys().map(|channel| format!("channel={channel}")).collect();
        format!("/api/stream?{}", channels.join("&"))
    }

    /// What was published until now need not come.
    fn begin(&mut self, channels: &[&'static str]) {
        let fresh = |channel: &&'static str| {
            let since = self.world.newest(channel);
            (*channel, Had { since, last: 0, gap: None, told: false, owed: false })
        };
        self.had = channels.iter().map(fresh).collect();
    }

    fn take(&mut self, message: &Message) {
        if message.name == "gap" {
            self.gaps += 1;
            let moment = message.data["timestamp"].as_str().unwrap();
            let moment = moment.parse::<jiff::Timestamp>().unwrap().as_millisecond();
            let of = message.data["channels"].as_array().unwrap();
            for (channel, had) in &mut self.had {
                if of.iter().any(|named| named == channel) {
                    had.owed = false;
                    had.told = true;
                    if message.data["reason"] != "dropped" {
                        had.gap = Some(moment);
                    }
                }
            }
            return;
        }
        let channel = message.data["channel"].as_str().unwrap();
        let number = message.data["data"]["n"].as_u64().unwrap();
        let (channel, had) = self.had.iter_mut().find(|(known, _)| **known == channel).unwrap();
        self.events += 1;
        // The last state may come again behind a gap.
        let is_again = number < had.last || number == had.last && had.gap.is_none();
        assert!(!is_again, "{channel}: {number} after {had:?}");
        if had.gap.is_none() {
            for missing in had.last.max(had.since) + 1..number {
                match self.world.fate(channel, missing) {
                    Fate::Published => {
                        panic!("{channel}: {missing} is missing before {number}: {had:?}")
                    }
                    Fate::Wrong => had.owed |= !had.told,
                    Fate::Unknown => {}
                }
            }
        }
        let received = message.data["timestamp"].as_i64().unwrap();
        had.gap.take_if(|gap| *gap <= received);
        (had.last, had.told) = (number, false);
    }

    /// Comes, goes, and comes back until it is over; then stays until it has the newest of all.
    async fn run(mut self, gateway: Arc<TestGateway>, mut rng: Rng) -> (u64, u64) {
        let mut id: Option<String> = None;
        loop {
            if id.is_none() {
                let count = rng.usize(1..4);
                self.begin(&rng.choose_multiple(CHANNELS, count));
            }
            let path = self.path();
            let mut stream = match &id {
                Some(id) => gateway.resume(&path, id).await,
                None => gateway.open(&path).await,
            };
            if id.is_none() {
                self.begin(&self.had.keys().copied().collect::<Vec<_>>());
            }
            let until = Instant::now() + Duration::from_millis(rng.u64(1..1500));
            if self.listen(&mut stream, until).await {
                return (self.events, self.gaps);
            }
            let comes_back = rng.u8(0..3) > 0 && !stream.last_event_id.is_empty();
            id = comes_back.then_some(stream.last_event_id);
            if rng.bool() {
                sleep(Duration::from_millis(rng.u64(0..300))).await;
            }
        }
    }

    /// Whether it is over and everything has come.
    async fn listen(&mut self, stream: &mut EventSource, until: Instant) -> bool {
        loop {
            let wait =
                if self.world.is_over() { Duration::from_secs(1) } else { until - Instant::now() };
            match timeout(wait, stream.next()).await {
                Ok(Some(message)) if message.name == "error" => return false,
                Ok(Some(message)) => self.take(&message),
                Ok(None) => return false,
                Err(_) if !self.world.is_over() => return false,
                Err(_) => {}
            }
            let is_complete =
                |(channel, had): (&&str, &Had)| had.last == self.world.newest(channel) && !had.owed;
            if self.world.is_over() && self.had.iter().all(is_complete) {
                return true;
            }
            if !self.world.is_over() && Instant::now() > until {
                return false;
            }
        }
    }
}

/// Something that happens to Redis, and its end.
async fn happens(redis: &mut Redis, relay: &Relay, rng: &mut Rng) {
    let for_a_while = Duration::from_millis(rng.u64(10..1500));
    match rng.u8(0..9) {
        0 => redis.end_connections("pubsub"),
        1 => redis.end_connections("normal"),
        2 => {
            relay.hold_subscribers(true);
            sleep(for_a_while).await;
            relay.hold_subscribers(false);
        }
        3 => {
            redis.signal("STOP");
            sleep(for_a_while).await;
            redis.signal("CONT");
        }
        4 => redis.run_loading().await,
        5 => {
            redis.kill();
            sleep(for_a_while).await;
            redis.run().await;
        }
        6 => {
            redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
            sleep(for_a_while).await;
            redis.cli(&["REPLICAOF", "NO", "ONE"]);
        }
        _ => {
            let but_one = CHANNELS.iter().filter(|channel| **channel != REFUSED);
            let but_one: Vec<_> = but_one.map(|channel| format!("&{channel}")).collect();
            let mut words =
                vec!["ACL", "SETUSER", "sluice", "resetchannels", "&sluice:*", "&alerts:*"];
            words.extend(but_one.iter().map(String::as_str));
            redis.cli(&words);
            sleep(for_a_while).await;
            redis.cli(&["ACL", "SETUSER", "sluice", "allchannels"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_missing_lies_behind_a_gap_or_was_dropped_and_told() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("SLUICE_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let time = Duration::from_secs(number("SLUICE_TEST_SECONDS").unwrap_or(10));
    tell(&format!("SLUICE_TEST_SEED={seed}"));
    let mut rng = Rng::with_seed(seed);

    let user = ["--user", "sluice", "on", ">p", "~*", "&*", "+@all"];
    let mut redis = Redis::start_with(&user).await;
    let relay = Relay::to(redis.port).await;
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = format!("redis://sluice:p@127.0.0.1:{}", relay.port);
        settings.redis.patterns = vec!["alerts:*".to_owned()];
        settings.redis.timeout = Duration::from_millis(700);
        settings.redis.probe_interval = Duration::from_millis(200);
        settings.events.linger = Duration::from_millis(100);
        settings.events.linger_channels = 2;
        settings.limits.hold_most = Duration::ZERO;
    })
    .await;
    gateway.ready().await;
    let (gateway, world) = (Arc::new(gateway), Arc::new(World::default()));

    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let client =
                Client { world: Arc::clone(&world), had: HashMap::new(), events: 0, gaps: 0 };
            tokio::spawn(client.run(Arc::clone(&gateway), rng.fork()))
        })
        .collect();
    let publisher = redis::Client::open(redis.url()).unwrap();
    let publishing = CHANNELS.map(|channel| {
        let (world, publisher, mut rng) = (Arc::clone(&world), publisher.clone(), rng.fork());
        tokio::spawn(async move {
            while !world.is_over() {
                let fate = if rng.u8(0..30) == 0 { Fate::Wrong } else { Fate::Published };
                world.publish(&publisher, channel, fate).await;
                sleep(Duration::from_millis(rng.u64(0..40))).await;
            }
        })
    });
    let until = Instant::now() + time;
    while Instant::now() < until && !clients.iter().any(JoinHandle::is_finished) {
        happens(&mut redis, &relay, &mut rng).await;
        sleep(Duration::from_millis(rng.u64(0..1000))).await;
    }
    world.is_over.store(true, Ordering::Relaxed);
    for publishing in publishing {
        within("the publishers", publishing).await.unwrap();
    }
    gateway.ready().await;
    // Whoever had to come back has come: what is said now is the newest.
    wait_for("everybody", async || {
        for channel in CHANNELS {
            world.publish(&publisher, channel, Fate::Published).await;
        }
        sleep(Duration::from_millis(300)).await;
        clients.iter().all(JoinHandle::is_finished)
    })
    .await;
    for client in clients {
        let (events, gaps) = client.await.unwrap();
        tell(&format!("{events} events, {gaps} gaps"));
    }
}

#[expect(clippy::print_stderr, reason = "for whoever repeats a failure")]
fn tell(what: &str) {
    eprintln!("{what}");
}
