//! One appliance's part in the cluster.

mod seam;

pub use seam::{
    Action, DvipaSettings, EntryKey, MemberSettings, NumberSource, SaUse, SequencePolicy, ServicePort, Settings, Told,
};
