//! Both stores under one suite, then what each has for itself.
//!
//! Tests that need Debian's etcd-server are ignored unless asked for: `cargo test -p facility --features etcd --
//! --include-ignored`.

// A failed expectation is the point, also in what the tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
mod place;
mod suite;

/// The suite over one store, each test with these attributes.
macro_rules! suite_over {
    ($module:ident, $place:ty, $attributes:tt) => {
        mod $module {
            suite_over!(@each $place, $attributes:
                two_who_draw_at_once_never_draw_the_same
                what_is_committed_survives_a_crash
                nothing_of_a_stale_epoch_is_written_or_deleted
                a_store_that_went_back_is_found_and_voided
                a_thousand_requests_are_answered_in_order
                it_does_what_the_store_in_memory_does
                a_full_queue_refuses_and_what_was_taken_is_answered
            );
        }
    };
    (@each $place:ty, $attributes:tt: $($test:ident)*) => {
        $(suite_over!(@one $place, $attributes, $test);)*
    };
    (@one $place:ty, [$(#[$attribute:meta])*], $test:ident) => {
        #[test]
        $(#[$attribute])*
        fn $test() {
            crate::suite::$test::<$place>(stringify!($test));
        }
    };
}

suite_over!(over_embedded, crate::embedded::File, []);
#[cfg(feature = "etcd")]
suite_over!(over_etcd_needs_etcd, crate::etcd::Etcd, [#[ignore = "needs Debian's etcd-server"]]);
