//! The rules of the protocol, each of which can be left out.

/// Every rule that stands between an attacker and a second delivery. A model of the protocol has them all.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Nothing at or below an SA's floor is taken: by the owner for a miss, by the target as the frame says.
    pub floor: bool,
    /// The target's half of that: frames carry the floor.
    pub carried_floor: bool,
    /// A target remembers the floors that it was told, and reports them to a new owner.
    pub remembered_floor: bool,
    /// A target refuses serials older than its last acknowledged freeing.
    pub serial: bool,
    /// A target refuses frames for another start of itself.
    pub incarnation: bool,
    /// A target refuses frames of another epoch than it knows.
    pub epoch: bool,
    /// When a target is lost, every SA born before delivers on older entries only.
    pub seal: bool,
    /// After an owner change a sealed SA serves nothing.
    pub sealed_serve_nothing: bool,
    /// A freeing reports the tops of all SAs of the peer, not of the connection's last one only.
    pub all_tops: bool,
    /// A freed connection refuses packets until the owner has acknowledged.
    pub tomb: bool,
    /// The owner takes each report of a freeing once.
    pub batch_numbers: bool,
    /// The owner forgets an entry only for the target that has it.
    pub forget_guard: bool,
    /// The owner raises floors before it forgets entries.
    pub floor_before_forget: bool,
    /// The owner forgets entries before its frames carry the next serial.
    pub forget_before_serial: bool,
    /// Entries of a lost target stay until every seal is set.
    pub seal_before_replacing: bool,
    /// Every core of the owner has heard that a target is suspended before its loss is recorded.
    pub suspension_heard: bool,
    /// Every core of a target has heard of the new epoch before its tops are reported.
    pub epoch_heard: bool,
    /// A loss stands in the CF before entries are replaced.
    pub loss_recorded: bool,
    /// A drained target leaves its tops in the CF.
    pub drained_recorded: bool,
    /// The CF holds which start of a target the owner has used; only an owner that has dealt with a loss changes that.
    pub enrolment: bool,
    /// A new owner takes no misses before every target has answered or counts as lost.
    pub settling: bool,
    /// Nor does it forward hits before then: a target that has answered may not know every floor.
    pub settling_hits: bool,
    /// A new owner begins with the tops that targets report.
    pub tops_at_change: bool,
    /// The owner marks misses in a window of its own.
    pub owner_window: bool,
    /// The target marks what it delivers in a window of its own.
    pub target_window: bool,
    /// An SA that is told to a target again keeps its window.
    pub snapshot_keeps_window: bool,
}

impl Rules {
    /// The protocol.
    pub const ALL: Rules = Rules {
        floor: true,
        carried_floor: true,
        remembered_floor: true,
        serial: true,
        incarnation: true,
        epoch: true,
        seal: true,
        sealed_serve_nothing: true,
        all_tops: true,
        tomb: true,
        batch_numbers: true,
        forget_guard: true,
        floor_before_forget: true,
        forget_before_serial: true,
        seal_before_replacing: true,
        suspension_heard: true,
        epoch_heard: true,
        loss_recorded: true,
        drained_recorded: true,
        enrolment: true,
        settling: true,
        settling_hits: true,
        tops_at_change: true,
        owner_window: true,
        target_window: true,
        snapshot_keeps_window: true,
    };
}
