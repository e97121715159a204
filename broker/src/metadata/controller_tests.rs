use super::*;
use crate::metadata::testing::{after, broker, cluster_with, id, partition, process, shown};
use crate::metadata::{AlteredPartition, Outcome};

/// A controller and the group that applies what it decides.
struct Run {
    controller: Controller,
    image: MetadataImage,
    now: Moment,
}

const TICK: Duration = Duration::from_millis(100);

impl Run {
    fn new(image: MetadataImage) -> Run {
        let now = Moment(1_000_000_000);
        let controller = Controller::new(ControllerSettings::default(), Arc::new(image.clone()), now);
        Run { controller, image, now }
    }

    fn apply(&mut self, commands: Vec<MetadataCommand>) -> usize {
        let count = commands.len();
        for command in commands {
            let (image, outcome) = after(&self.image, &command);
            assert!(!matches!(outcome, Outcome::Broker(Err(_))), "{command:?} {outcome:?}");
            self.image = image;
            let more = self.controller.handle_image(self.now, Arc::new(self.image.clone()));
            assert!(more.is_empty(), "{more:?}");
        }
        count
    }

    fn beat(&mut self, broker: i32, change: impl FnOnce(&mut Heartbeat)) -> (HeartbeatAnswer, usize) {
        let (answer, commands) = self.say(broker, change);
        (answer, self.apply(commands))
    }

    /// The same, and nothing of what is decided comes into the image.
    fn say(
        &mut self,
        broker: i32,
        change: impl FnOnce(&mut Heartbeat),
    ) -> (HeartbeatAnswer, Vec<MetadataCommand>) {
        let mut heartbeat = Heartbeat {
            process: process(&self.image, broker),
            image_index: self.image.index,
            may_lead: true,
            wants_shutdown: false,
            not_begun: Vec::new(),
            unreachable: BTreeSet::new(),
        };
        change(&mut heartbeat);
        self.controller.handle_heartbeat(self.now, heartbeat).unwrap()
    }

    /// Ticks for so long, with heartbeats of these brokers before each; how many commands came of it.
    fn pass(&mut self, time: Duration, alive: &[i32]) -> usize {
        let mut commands = 0;
        for _ in 0..time.as_millis() / TICK.as_millis() {
            self.now = self.now + TICK;
            for broker in alive {
                commands += self.beat(*broker, |_| {}).1;
            }
            let decided = self.controller.handle_tick(self.now);
            commands += self.apply(decided);
        }
        commands
    }

    fn all(&self) -> Vec<String> {
        self.image.topics.values().map(|topic| shown(&topic.partitions[0])).collect()
    }

    fn fenced(&self, broker: i32) -> bool {
        self.image.brokers[&BrokerId(broker)].fenced
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn who_is_silent_is_fenced_once_and_comes_back_when_its_image_is_current() {
    let mut run = Run::new(cluster_with(3, &[&[1, 2, 3]]));
    assert_eq!(run.pass(seconds(30), &[1, 2, 3]), 0, "nothing happens while all are heard");
    assert_eq!(run.pass(seconds(20), &[2, 3]), 1);
    assert!(run.fenced(1));
    assert_eq!(run.all(), ["2@1/1 isr 2,3"]);
    let (answer, commands) = run.beat(1, |heartbeat| heartbeat.image_index = 0);
    assert!(answer.fenced && commands == 0);
    assert_eq!(answer.revoked_at, run.image.index);
    assert_eq!(run.beat(1, |_| {}).1, 1);
    assert!(!run.fenced(1));
}

#[test]
fn a_pause_of_the_controller_fences_nobody() {
    let mut run = Run::new(cluster_with(3, &[&[1, 2, 3]]));
    run.pass(seconds(1), &[1, 2, 3]);
    run.now = run.now + seconds(60);
    assert!(run.controller.handle_tick(run.now).is_empty());
    assert_eq!(run.pass(Duration::from_millis(1_600), &[]), 0);
    assert_eq!(run.pass(seconds(1), &[]), 3, "silence is silence after all");
}

#[test]
fn who_is_silent_and_gone_is_fenced_sooner_and_who_is_heard_never() {
    let image = cluster_with(3, &[&[1, 2, 3], &[2, 3, 1]]);
    let mut run = Run::new(image);
    let gone = BTreeSet::from([1, 2].map(BrokerId));
    assert!(run.controller.handle_gone(run.now, gone).is_empty(), "both were heard just now");
    assert_eq!(run.pass(Duration::from_millis(400), &[2, 3]), 0);
    assert_eq!(run.pass(Duration::from_millis(100), &[2, 3]), 1);
    assert!(run.fenced(1));
    assert_eq!(run.pass(seconds(10), &[2, 3]), 0, "it is heard");
    assert_eq!(run.all(), ["2@1/1 isr 2,3", "2@0/1 isr 2,3"]);
}

#[test]
fn nobody_is_fenced_before_its_session_is_over_however_ticks_and_heartbeats_fall() {
    for offset in [1, 50, 99] {
        let mut run = Run::new(cluster_with(3, &[&[1, 2, 3]]));
        let began = run.now;
        run.now = began + Duration::from_millis(offset);
        for broker in [1, 2, 3] {
            assert_eq!(run.beat(broker, |_| {}).1, 0);
        }
        run.now = began;
        assert_eq!(run.pass(seconds(2), &[]), 0, "heard {offset} ms after a tick");
        assert_eq!(run.pass(TICK, &[]), 3, "heard {offset} ms after a tick");
    }
}

#[test]
fn who_is_heard_while_its_fence_is_proposed_is_told_so_and_is_fenced() {
    let mut run = Run::new(cluster_with(3, &[&[1, 2, 3]]));
    run.pass(Duration::from_millis(1_900), &[2, 3]);
    run.now = run.now + TICK;
    let fence = run.controller.handle_tick(run.now);
    assert_eq!(fence.len(), 1);
    let (answer, commands) = run.beat(1, |_| {});
    assert!(answer.fenced && commands == 0, "it is said again where it comes to nothing");
    run.image = after(&run.image, &fence[0]).0;
    let unfence = run.controller.handle_image(run.now, Arc::new(run.image.clone()));
    assert_eq!(unfence.len(), 1, "the fence is in the image, and it is heard");
    assert!(run.beat(1, |_| {}).0.fenced);
    run.apply(unfence);
    assert!(!run.beat(1, |_| {}).0.fenced);
    assert_eq!(run.pass(seconds(5), &[1, 2, 3]), 0);
}

#[test]
fn a_new_controller_gives_everybody_a_session() {
    let mut run = Run::new(cluster_with(3, &[&[1, 2, 3]]));
    assert_eq!(run.pass(Duration::from_millis(1_900), &[]), 0);
    let mut run = Run::new(run.image);
    assert_eq!(run.pass(Duration::from_millis(1_900), &[]), 0);
}

#[test]
fn a_node_alone_is_never_fenced() {
    let mut run = Run::new(cluster_with(1, &[&[1]]));
    assert_eq!(run.pass(seconds(60), &[]), 0);
    assert_eq!(run.beat(1, |heartbeat| heartbeat.may_lead = false).1, 0, "nor does anything move");
}

#[test]
fn a_stalled_storage_hands_over_in_one_event_and_leads_again_after_its_probation() {
    let mut run = Run::new(cluster_with(3, &[&[1, 2, 3], &[1, 3, 2], &[1]]));
    let (_, commands) = run.beat(1, |heartbeat| heartbeat.may_lead = false);
    assert_eq!(commands, 1);
    assert_eq!(run.all(), ["2@1/1 isr 2,3", "3@1/1 isr 3,2", "1@0/0 isr 1"]);
    assert_eq!(run.beat(1, |heartbeat| heartbeat.may_lead = false).1, 0);
    assert!(!run.fenced(1), "it is heard");
    // On probation it is given nothing, unless there is nobody else.
    run.pass(seconds(1), &[1, 2, 3]);
    assert_eq!(run.controller.barred(), [BrokerId(1)]);
    let seen = partition(&run.image, 1, 0);
    let back = AlteredPartition {
        partition: id(1, 0),
        leader_epoch: seen.leader_epoch,
        partition_epoch: seen.partition_epoch,
        isr: [1, 2].map(|member| process(&run.image, member)).to_vec(),
    };
    run.apply(vec![MetadataCommand::AlterPartition {
        leader: process(&run.image, 2),
        partitions: vec![back],
    }]);
    run.beat(2, |heartbeat| heartbeat.may_lead = false);
    assert_eq!(run.all()[0], "1@2/3 isr 1 elr 2", "who is on probation is better than who stands still");
    run.pass(seconds(16), &[1, 2, 3]);
    assert!(run.controller.barred().is_empty());
}

#[test]
fn leaders_go_back_every_few_minutes_and_not_to_who_is_barred() {
    let mut run = Run::new(cluster_with(2, &[&[1, 2]]));
    run.beat(1, |heartbeat| heartbeat.may_lead = false);
    let seen = partition(&run.image, 1, 0);
    assert_eq!(seen.leader, Some(BrokerId(2)));
    let back = AlteredPartition {
        partition: id(1, 0),
        leader_epoch: seen.leader_epoch,
        partition_epoch: seen.partition_epoch,
        isr: [1, 2].map(|member| process(&run.image, member)).to_vec(),
    };
    run.apply(vec![MetadataCommand::AlterPartition {
        leader: process(&run.image, 2),
        partitions: vec![back],
    }]);
    assert_eq!(run.pass(seconds(299), &[1, 2]), 0);
    assert_eq!(run.pass(seconds(1), &[1, 2]), 1);
    assert_eq!(run.all(), ["1@2/3 isr 1,2"]);
}

#[test]
fn an_epoch_that_does_not_begin_goes_to_the_next_replica() {
    let mut run = Run::new(cluster_with(3, &[&[1, 2, 3]]));
    let report = |heartbeat: &mut Heartbeat| heartbeat.not_begun = vec![(id(1, 0), LeaderEpoch(0))];
    assert_eq!(run.beat(1, report).1, 1);
    assert_eq!(run.all(), ["2@1/1 isr 1,2,3"]);
    assert_eq!(run.beat(1, report).1, 0, "it is another epoch by now");
}

#[test]
fn a_leader_cut_off_from_its_followers_gives_way_after_two_seconds() {
    let whole = cluster_with(3, &[&[1, 2, 3]]);
    let seen = partition(&whole, 1, 0);
    let alone = AlteredPartition {
        partition: id(1, 0),
        leader_epoch: seen.leader_epoch,
        partition_epoch: seen.partition_epoch,
        isr: vec![process(&whole, 1)],
    };
    let alone = MetadataCommand::AlterPartition { leader: process(&whole, 1), partitions: vec![alone] };
    let mut run = Run::new(whole);
    run.apply(vec![alone]);
    let mut moved = None;
    for tick in 1..=30 {
        run.now = run.now + TICK;
        run.beat(1, |_| {});
        run.beat(2, |_| {});
        run.beat(3, |heartbeat| heartbeat.unreachable = BTreeSet::from([BrokerId(1)]));
        let decided = run.controller.handle_tick(run.now);
        if run.apply(decided) > 0 {
            moved.get_or_insert(tick);
        }
    }
    assert_eq!(moved, Some(20));
    assert_eq!(run.all(), ["3@1/2 isr 3 elr 1,2"]);
}

#[test]
fn who_wants_to_stop_may_when_nobody_else_could_lead_what_it_leads() {
    let mut run = Run::new(cluster_with(2, &[&[1, 2], &[1]]));
    let stop = |heartbeat: &mut Heartbeat| heartbeat.wants_shutdown = true;
    let (answer, commands) = run.beat(1, stop);
    assert!(!answer.may_stop && commands == 1);
    assert_eq!(run.all(), ["2@1/1 isr 2", "1@0/0 isr 1"]);
    assert!(run.beat(1, stop).0.may_stop);
}

#[test]
fn what_was_taken_before_the_controller_began_may_not_be_known_to_who_has_an_older_image() {
    let mut run = Run::new(cluster_with(2, &[&[1, 2]]));
    assert_eq!(run.beat(1, |_| {}).0.revoked_at, run.image.index);
}

#[test]
fn whose_storage_takes_no_records_is_told_until_the_image_has_it_that_others_are_to_lead() {
    let mut run = Run::new(cluster_with(2, &[&[1, 2]]));
    let takes_none = |heartbeat: &mut Heartbeat| heartbeat.may_lead = false;
    assert!(!run.beat(1, |_| {}).0.is_relieved);
    assert!(run.beat(1, takes_none).0.is_relieved);
    run.pass(seconds(1), &[2]);
    let (answer, _) = run.beat(1, takes_none);
    assert_eq!((answer.is_relieved, answer.revoked_at), (false, run.image.index));
    let mut run = Run::new(cluster_with(2, &[&[1]]));
    assert!(!run.beat(1, takes_none).0.is_relieved, "nobody else could");
}

#[test]
fn whose_storage_takes_records_again_before_others_lead_is_relieved_all_the_same() {
    let mut run = Run::new(cluster_with(2, &[&[1, 2]]));
    assert!(run.say(1, |heartbeat| heartbeat.may_lead = false).0.is_relieved);
    assert!(run.say(1, |_| {}).0.is_relieved, "it may be decided at any time");
    // Should it be lost, it is said again.
    run.pass(seconds(2), &[1, 2]);
    assert_eq!(partition(&run.image, 1, 0).leader, Some(BrokerId(2)));
    let (answer, _) = run.beat(1, |_| {});
    assert_eq!((answer.is_relieved, answer.revoked_at > 0), (false, true));
}

#[test]
fn who_wants_to_stop_leads_nothing_that_is_about_to_move() {
    let mut run = Run::new(cluster_with(2, &[&[1, 2]]));
    let stops = |heartbeat: &mut Heartbeat| heartbeat.wants_shutdown = true;
    let (answer, _) = run.say(1, stops);
    assert_eq!((answer.is_relieved, answer.may_stop), (true, false));
    run.pass(seconds(2), &[2]);
    let (answer, _) = run.beat(1, stops);
    assert_eq!((answer.is_relieved, answer.may_stop), (false, true));
    let mut run = Run::new(cluster_with(2, &[&[1]]));
    assert!(!run.say(1, stops).0.is_relieved, "it leads on what nobody else could");
}

#[test]
fn who_follows_only_is_not_relieved_of_what_it_leads_alone() {
    let mut run = Run::new(cluster_with(2, &[&[1], &[2, 1]]));
    assert!(!run.beat(1, |heartbeat| heartbeat.may_lead = false).0.is_relieved);
}

#[test]
fn who_can_take_over_again_is_given_at_once_what_waits() {
    let mut run = Run::new(cluster_with(4, &[&[1, 2, 3], &[1, 4]]));
    for broker in [3, 2, 1] {
        run.beat(broker, |heartbeat| heartbeat.may_lead = false);
    }
    let leaders = |run: &Run| [1, 2].map(|topic| partition(&run.image, topic, 0).leader);
    assert_eq!(leaders(&run), [Some(BrokerId(1)), Some(BrokerId(4))], "{:?}", run.all());
    run.beat(2, |_| {});
    assert_eq!(leaders(&run), [Some(BrokerId(2)), Some(BrokerId(4))], "{:?}", run.all());
}

#[test]
fn an_earlier_process_is_told_so() {
    let mut run = Run::new(cluster_with(2, &[&[1, 2]]));
    let late = process(&run.image, 1);
    run.apply(vec![MetadataCommand::RegisterBroker(broker(1, 2, 1, 9))]);
    let heartbeat = Heartbeat {
        process: late,
        image_index: 99,
        may_lead: true,
        wants_shutdown: false,
        not_begun: Vec::new(),
        unreachable: BTreeSet::new(),
    };
    let refused = run.controller.handle_heartbeat(run.now, heartbeat);
    assert!(matches!(refused, Err(BrokerError::StaleEpoch { .. })));
}
