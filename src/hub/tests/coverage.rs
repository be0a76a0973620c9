//! What is heard from when on, who is told when it was not, and what the broker refuses.

use super::*;
use crate::hub::coverage::ARRIVING;

const ASKER: Asker = Asker::V4(std::net::Ipv4Addr::LOCALHOST);

/// A hub on its tasks, whose source listens to `standing:*` and to what is asked of it.
struct House {
    hub: Hub,
    demand: Demand,
    inlet: Inlet,
    stop: Stop,
}

impl House {
    async fn new() -> Self {
        let stop = Stop::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut settings = settings(2);
        settings.standing = vec![ChannelPattern::new("standing:*").unwrap()];
        let (hub, demand) = Hub::start(settings, Duration::ZERO, &metrics, &stop);
        let inlet = hub.inlet("test", inlet_settings(), &metrics);
        inlet.connected(Vec::new()).await.unwrap();
        Self { hub, demand, inlet, stop }
    }

    /// Somebody who listens to these, whether the source does or not.
    async fn arrive(&self, texts: &[&str]) -> Recorder {
        let recorder = Recorder::default();
        let arrival = Arrival {
            subscriber: Box::new(recorder.clone()),
            by: NOBODY,
            filters: filters(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()),
            resume: Resume::Fresh,
            snapshot: false,
            unreadable: Vec::new(),
        };
        self.hub.arrive(arrival).await.unwrap();
        wait_until(|| recorder.0.lock().start.is_some()).await;
        recorder
    }

    /// The channels that have come to be wanted, with their tickets.
    fn wanted(&self) -> Vec<(Channel, Ticket)> {
        let changes = self.demand.tickets().into_iter();
        let mut wanted: Vec<_> = changes.filter_map(|(channel, t)| Some((channel, t?))).collect();
        wanted.sort();
        wanted
    }

    /// Waits until all that was said before has been taken in.
    async fn settled(&self) {
        self.hub.listeners(Vec::new()).await.unwrap();
    }
}

fn gap(channels: &[&str]) -> (Vec<String>, GapReason) {
    let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
    (channels, GapReason::SourceReconnected)
}

fn expire(core: &mut Core, now: Instant) {
    core.expire(now);
    while core.work() {}
}

fn names(channels: &[(Channel, Ticket)]) -> Vec<&str> {
    channels.iter().map(|(channel, _)| channel.as_str()).collect()
}

#[tokio::test]
async fn a_lost_source_is_a_gap_for_exactly_those_it_touched() {
    let house = House::new().await;
    let standing = house.arrive(&["standing:1"]).await;
    let asked = house.arrive(&["asked:1"]).await;
    let both = house.arrive(&["standing:2", "asked:2"]).await;
    let unheard = house.arrive(&["asked:3"]).await;
    let wanted = house.wanted();
    assert_eq!(names(&wanted), ["asked:1", "asked:2", "asked:3"]);
    house.inlet.live(wanted[..2].to_vec()).await.unwrap();
    // They have listened for a while without being heard.
    wait_until(|| asked.0.lock().gaps == [gap(&["asked:1"])]).await;

    house.inlet.lost("test").await.unwrap();
    house.inlet.connected(Vec::new()).await.unwrap();
    house.inlet.live(wanted[..1].to_vec()).await.unwrap();
    wait_until(|| asked.0.lock().gaps.len() == 2).await;
    wait_until(|| both.0.lock().gaps == [gap(&["asked:2"]), gap(&["standing:2"])]).await;
    assert_eq!(standing.0.lock().gaps, [gap(&["standing:1"])]);
    assert_eq!(unheard.0.lock().gaps, []);
    house.stop.abort();
}

#[tokio::test]
async fn whoever_waits_is_answered_when_all_is_heard_and_not_before() {
    let house = House::new().await;
    let texts = ["asked:1", "asked:2", "standing:1"].map(str::to_owned);
    let filters = filters(&texts);
    let covered = house.hub.cover(&filters, ASKER);
    tokio::pin!(covered);
    assert!(futures_util::poll!(&mut covered).is_pending());
    house.settled().await;
    let wanted = house.wanted();
    for one in &wanted {
        assert!(futures_util::poll!(&mut covered).is_pending());
        house.inlet.live(vec![one.clone()]).await.unwrap();
        house.settled().await;
    }
    let unheard = covered.await.unwrap().unheard;
    assert_eq!(unheard, filters.iter().filter_map(Filter::exact).cloned().collect::<Vec<_>>());

    // What is heard already is not waited for; what is asked of a source that is away neither.
    assert_eq!(house.hub.cover(&filters, ASKER).await.unwrap().unheard.len(), 3);
    house.inlet.lost("test").await.unwrap();
    house.hub.cover(&super::filters(&["asked:9".to_owned()]), ASKER).await.unwrap();
    house.stop.abort();
}

#[tokio::test]
async fn an_answer_to_a_demand_that_was_withdrawn_is_none() {
    let mut settings = settings(1);
    settings.standing = Vec::new();
    settings.linger.time = Duration::ZERO;
    let demand = Demand::default();
    let mut core = Core::new(settings, demand.clone());
    core.connected(&[]);
    let wanted = filters(&["asked:1".to_owned()]);
    let (reply, mut first) = oneshot::channel();
    core.cover(&wanted, ASKER, reply);
    let old = demand.tickets();
    first.close();
    expire(&mut core, Instant::now());
    expire(&mut core, Instant::now() + ARRIVING);
    assert_eq!(demand.tickets().into_values().collect::<Vec<_>>(), [None], "it is let go");

    let (reply, mut second) = oneshot::channel();
    core.cover(&wanted, ASKER, reply);
    let new = demand.tickets();
    let tickets = |changes: HashMap<Channel, Option<Ticket>>| {
        changes.into_iter().map(|(channel, ticket)| (channel, ticket.unwrap())).collect::<Vec<_>>()
    };
    core.live(&tickets(old));
    while core.work() {}
    assert!(second.try_recv().is_err(), "the source may have left the channel since");
    core.live(&tickets(new));
    while core.work() {}
    assert!(second.try_recv().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_waited_for_is_not_let_go() {
    let mut settings = settings(1);
    settings.standing = Vec::new();
    settings.linger = Lingering { time: Duration::from_secs(60), channels: 0, demand: usize::MAX };
    let demand = Demand::default();
    let mut core = Core::new(settings, demand.clone());
    core.connected(&[]);
    let one = Channel::new("asked:1").unwrap();
    let (reply, waits) = oneshot::channel();
    core.cover(&filters(&["asked:1".to_owned()]), ASKER, reply);
    for n in 0..10 {
        let (reply, gone) = oneshot::channel();
        core.cover(&filters(&[format!("stranger:{n}")]), ASKER, reply);
        drop(gone);
        tokio::time::advance(Duration::from_secs(10)).await;
        expire(&mut core, Instant::now());
    }
    let changes = demand.tickets();
    assert_eq!(changes.values().flatten().count(), 2, "it, and the last stranger's");
    core.live(&[(one.clone(), changes[&one].expect("it is still wanted"))]);
    drop(waits);
    // Whoever has waited may arrive in a moment.
    tokio::time::advance(Duration::from_secs(1)).await;
    expire(&mut core, Instant::now());
    assert!(!demand.tickets().contains_key(&one));
    tokio::time::advance(ARRIVING).await;
    expire(&mut core, Instant::now());
    assert_eq!(demand.tickets()[&one], None);
}

#[tokio::test]
async fn what_the_broker_refuses_ends_only_the_streams_of_that() {
    let house = House::new().await;
    let refused = house.arrive(&["asked:1", "standing:1"]).await;
    let other = house.arrive(&["asked:2", "standing:1"]).await;
    let waits = filters(&["asked:1", "asked:2"].map(str::to_owned));
    let covered = house.hub.cover(&waits, ASKER);
    tokio::pin!(covered);
    assert!(futures_util::poll!(&mut covered).is_pending());
    house.settled().await;
    let wanted = house.wanted();
    house.inlet.refused(wanted[..1].to_vec()).await.unwrap();
    assert_eq!(covered.await.unwrap().refused, [Filter::parse("asked:1").unwrap()]);
    wait_until(|| refused.0.lock().refused == ["asked:1"]).await;
    house.settled().await;
    assert_eq!(other.0.lock().refused, Vec::<String>::new());
    // Whoever asks for it anew has the source ask anew.
    let again = filters(&["asked:1".to_owned()]);
    let covered = house.hub.cover(&again, ASKER);
    tokio::pin!(covered);
    assert!(futures_util::poll!(&mut covered).is_pending());
    house.settled().await;
    assert_eq!(names(&house.wanted()), ["asked:1"]);
    house.stop.abort();
}

#[tokio::test]
async fn a_pattern_that_is_refused_takes_its_own_streams_and_no_others() {
    let house = House::new().await;
    let pattern = house.arrive(&["standing:*"]).await;
    let exact = house.arrive(&["standing:1"]).await;
    assert_eq!(house.wanted(), []);
    house.inlet.lost("test").await.unwrap();
    let standing = vec![ChannelPattern::new("standing:*").unwrap()];
    house.inlet.connected(standing).await.unwrap();
    wait_until(|| pattern.0.lock().refused == ["standing:*"]).await;
    house.settled().await;
    // Its channels may be heard one by one.
    assert_eq!(exact.0.lock().refused, Vec::<String>::new());
    let wanted = house.wanted();
    assert_eq!(names(&wanted), ["standing:1"]);
    house.inlet.live(wanted).await.unwrap();
    wait_until(|| exact.0.lock().gaps == [gap(&["standing:1"])]).await;
    let refused =
        house.hub.cover(&filters(&["standing:x*".to_owned()]), ASKER).await.unwrap().refused;
    assert_eq!(refused, [Filter::parse("standing:x*").unwrap()]);

    house.inlet.lost("test").await.unwrap();
    house.inlet.connected(Vec::new()).await.unwrap();
    house.settled().await;
    let left = house.demand.tickets();
    assert_eq!(left, HashMap::from([(Channel::new("standing:1").unwrap(), None)]));
    house.stop.abort();
}

/// A core without patterns, whose bounds are these, and its demand.
fn bounded(channels: usize, demand: usize) -> (Core, Demand) {
    let mut settings = settings(1);
    settings.standing = Vec::new();
    settings.linger = Lingering { time: Duration::from_secs(60), channels, demand };
    let demand = Demand::default();
    let mut core = Core::new(settings, demand.clone());
    core.connected(&[]);
    (core, demand)
}

fn asker(n: u8) -> Asker {
    Asker::from([127, 0, 0, n])
}

fn cover(core: &mut Core, names: &[String], by: u8) -> oneshot::Receiver<Covered> {
    let (reply, covered) = oneshot::channel();
    core.cover(&filters(names), asker(by), reply);
    covered
}

#[tokio::test(start_paused = true)]
async fn a_strangers_churn_evicts_no_channel_of_others() {
    let (mut core, demand) = bounded(10, usize::MAX);
    drop(cover(&mut core, &["honest".to_owned()], 1));
    for n in 0..200 {
        drop(cover(&mut core, &[format!("churn:{n}")], 2));
        tokio::time::advance(Duration::from_millis(200)).await;
        expire(&mut core, Instant::now());
    }
    let wanted = demand.tickets();
    assert!(wanted[&Channel::new("honest").unwrap()].is_some());
    let churn = wanted.values().flatten().count() - 1;
    assert!(churn <= 30, "{churn} are kept: ten, and those of the last three seconds");
}

#[tokio::test]
async fn beyond_all_that_may_be_asked_for_whoever_has_most_gives_way() {
    let (mut core, demand) = bounded(10, 10);
    let many: Vec<_> = (0..10).map(|n| format!("many:{n}")).collect();
    let mut waits = cover(&mut core, &many, 2);
    assert!(waits.try_recv().is_err());
    // Whoever has most finds no more room.
    let mut more = cover(&mut core, &["more".to_owned()], 2);
    assert_eq!(more.try_recv().unwrap().refused, [Filter::parse("more").unwrap()]);
    let mut honest = cover(&mut core, &["honest".to_owned()], 1);
    while core.work() {}
    assert_eq!(waits.try_recv().unwrap().refused.len(), 1, "it gave way");
    assert!(honest.try_recv().is_err(), "it waits for the source");
    let wanted = demand.tickets();
    assert_eq!(wanted.values().flatten().count(), 10);
    core.live(&[(
        Channel::new("honest").unwrap(),
        wanted[&Channel::new("honest").unwrap()].unwrap(),
    )]);
    while core.work() {}
    assert_eq!(honest.try_recv().unwrap().refused, []);
}

#[tokio::test]
async fn whoever_asks_for_a_channel_that_somebody_asked_for_before_waits_in_a_turn_of_its_own() {
    let (mut core, demand) = bounded(10, 100);
    let one = ["one".to_owned()];
    let _first = cover(&mut core, &one, 1);
    let _second = cover(&mut core, &one, 2);
    let changes = demand.changes();
    let change = &changes[&Channel::new("one").unwrap()];
    assert_eq!(change.by[..], [asker(1), asker(2)]);
}

#[tokio::test]
async fn thousands_are_told_of_a_loss_each_once_and_before_what_follows() {
    let house = House::new().await;
    let mut all = Vec::new();
    for n in 0..3000 {
        all.push(house.arrive(&[["standing:1", "standing:*"][n % 2]]).await);
    }
    for _ in 0..2 {
        house.inlet.lost("test").await.unwrap();
        house.inlet.connected(Vec::new()).await.unwrap();
    }
    // It overtakes the walk over all of them.
    house.inlet.publish(b"standing:1", b"1").await.unwrap();
    for one in &all {
        wait_until(|| one.0.lock().sequences.len() == 1).await;
    }
    house.settled().await;
    for one in &all {
        let record = one.0.lock();
        assert!(!record.gaps.is_empty() && record.gaps.len() <= 2, "{record:?}");
        assert!(record.gaps_after.iter().all(|told| *told == 0), "{record:?}");
    }
    house.stop.abort();
}

#[tokio::test]
async fn whoever_has_left_is_not_let_in_and_too_many_overlapping_patterns_are_not_either() {
    let (mut core, _demand) = bounded(10, 100);
    let arrive = |core: &mut Core, text: &str, left: bool| {
        let recorder = Recorder::default();
        recorder.0.lock().left = left;
        core.openings.push(Opening::Arrive(Box::new(Arrival {
            subscriber: Box::new(recorder),
            by: NOBODY,
            filters: filters(&[text.to_owned()]),
            resume: Resume::Fresh,
            snapshot: true,
            unreadable: Vec::new(),
        })));
        while core.work() {}
        core.take().pop().and_then(|(_, mut deliveries)| deliveries.pop())
    };
    core.take();
    assert!(arrive(&mut core, "gone", true).is_none());
    assert_eq!(core.subscribers(), 0);
    let start = |delivery| match delivery {
        Some(Delivery::Join(join)) => join.from,
        _ => panic!("nobody came in"),
    };
    for n in 1..=64 {
        let from = start(arrive(&mut core, &format!("{}*", "a".repeat(n)), false));
        assert!(matches!(from, StartFrom::Snapshot(_)));
    }
    let one_more = start(arrive(&mut core, &format!("{}*", "a".repeat(65)), false));
    assert!(matches!(one_more, StartFrom::Crowded(_)));
    // Others are not concerned, nor is one that is there already.
    for text in ["b*", "ab*", "a*"] {
        assert!(matches!(start(arrive(&mut core, text, false)), StartFrom::Snapshot(_)), "{text}");
    }
    assert_eq!(core.subscribers(), 68);
}

#[tokio::test]
async fn a_gap_of_one_channel_does_not_overtake_that_of_a_pattern() {
    let house = House::new().await;
    let mut all = Vec::new();
    for _ in 0..2000 {
        all.push(house.arrive(&["asked:1", "standing:*"]).await);
    }
    let wanted = house.wanted();
    house.inlet.lost("test").await.unwrap();
    house.inlet.connected(Vec::new()).await.unwrap();
    house.inlet.live(wanted).await.unwrap();
    for one in &all {
        wait_until(|| one.0.lock().gaps.len() == 2).await;
        assert_eq!(one.0.lock().gaps, [gap(&["standing:*"]), gap(&["asked:1"])]);
    }
    house.stop.abort();
}

#[tokio::test]
async fn what_two_have_asked_for_is_given_back_when_it_gives_way() {
    let (mut core, demand) = bounded(10, 3);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let x = Channel::new("x").unwrap();
    let _first = cover(&mut core, &names(&["x", "y", "z"]), 1);
    // The source has taken it.
    assert!(demand.tickets()[&x].is_some());
    let _second = cover(&mut core, &names(&["x"]), 2);
    // It counts for whoever has less now, so another channel of the first gives way.
    let _third = cover(&mut core, &names(&["honest"]), 3);
    let changes = demand.tickets();
    assert_eq!(changes[&Channel::new("y").unwrap()], None);
    assert!(changes[&x].is_some(), "{changes:?}");
    // Nobody has more than what is asked for now: nothing gives way to what is refused.
    let mut fourth = cover(&mut core, &names(&["v", "w"]), 4);
    assert_eq!(fourth.try_recv().unwrap().refused, [Filter::parse("w").unwrap()]);
    assert_eq!(demand.tickets(), HashMap::new());
}
