//! The contract that every store keeps, as functions that panic where it is broken. Each is named after the rule it proves
//! (docs/delivery.md) and works on channels of its own below `prefix`, so that all of them can run on one store at the same time.
//!
//! `carillon_engine::contract_tests!` makes a test of each.

use crate::ports::{Answer, Store};
use crate::rows::{
    AppendOutcome, Checkpoint, Connection, Dialect, Head, Inverse, Leased, Link, ListOutcome, Logged, NewEntry, NewMessage,
    Previous, PutOutcome, Released, RotateOutcome, Rotation, ShardKey, Subscription, SubscriptionState, Tail, Window,
};
use carillon_core::channel::{Channel, Namespace};
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::event::{EventJson, Identity};
use carillon_core::limits::{ENTRY_BYTES, ENTRY_MESSAGES};
use carillon_core::namespace::NamespaceOptions;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::{Millis, Seconds};
use futures_util::future::join_all;
use std::collections::BTreeSet;

/// The moment at which everything happens: in the year 2100, so that no store's own expiry gets in the way.
const NOW: Millis = Millis(4_102_444_800_000);

/// The epoch of logs that need no other.
const EPOCH: Epoch = Epoch(7);

/// A life that has ended at [`NOW`], by one second.
const ENDED: Seconds = Seconds(NOW.0 / 1000 - 1);

/// A life that ends at [`NOW`]: the row is still there.
const ENDING: Seconds = Seconds(NOW.0 / 1000);

/// A life that goes on.
const LASTING: Seconds = Seconds(NOW.0 / 1000 + 3_600);

/// A limit that no test reaches.
const NO_LIMIT: usize = 100_000;

/// Makes a test of each rule for the store that the expression makes, each time anew.
#[macro_export]
macro_rules! contract_tests {
    ($store:expr) => {
        $crate::contract_tests! { @each $store =>
            a1_messages_come_back_byte_for_byte
            a2_an_expired_entry_is_absent_for_readers
            a2_the_newest_entry_tells_the_last_offset
            a4_the_first_entry_starts_the_epoch
            a4_an_epoch_is_started_once_and_only_the_head_s_own
            a4_a_rotation_closes_the_epoch_and_begins_the_next
            a4_a_rotation_without_entries_leaves_no_closing_entry
            a4_a_rotation_is_refused_when_the_head_has_moved
            a4_a_rotation_is_refused_when_the_closing_offset_is_taken
            a4_a_rotation_never_shortens_the_head_s_life
            a5_the_same_attempt_is_done
            a5_a_taken_offset_tells_the_next
            a5_an_expired_entry_keeps_its_offset
            a5_a_repeated_identity_is_a_duplicate_at_its_first_position
            a5_an_expired_marker_is_absent
            a5_reasons_count_in_the_order_of_entry_head_and_markers
            a5_of_many_appends_at_one_offset_one_is_done
            d2_an_empty_log_is_an_empty_window
            d2_a_window_begins_inside_an_entry
            d2_a_window_ends_at_its_limit_and_says_whether_there_is_more
            d2_a_window_ends_where_it_is_told
            d2_a_window_of_many_small_entries_is_whole
            d2_a_window_of_large_entries_is_whole
            d2_epochs_and_channels_are_logs_of_their_own
            d2_closing_entries_are_passed_over
            t1_a_head_is_made_once
            t1_a_head_made_anew_has_a_later_epoch
            t1_many_make_one_head
            t2_a_head_s_life_is_extended_and_never_shortened
            t2_a_shard_s_life_is_extended_and_never_shortened
            s5_a_shard_is_added_after_the_newest_alone
            s2_arrivals_are_counted
            s2_many_arrivals_are_all_counted
            s2_an_expired_shard_begins_anew
            s2_listing_marks_shard_and_head
            s2_listing_needs_both_rows
            d1_a_wake_up_counts_a_shard_s_generation_up
            d1_a_free_lease_is_taken
            d1_a_held_lease_is_not_taken
            d1_a_lapsed_lease_is_taken
            d1_no_lease_without_a_shard
            d4_only_the_holder_moves_the_cursor
            d4_a_release_needs_the_generation_unchanged
            d4_a_release_without_a_generation_leaves_the_rest
            d4_a_release_without_a_cursor_writes_none
            p2_the_holder_alone_puts_a_drain_off
            d5_an_unlisted_shard_is_as_new
            d5_unlisting_needs_holder_and_generation
            d5_unlisting_works_without_a_head
            d6_a_checkpoint_is_kept_until_the_cursor_moves
            s1_a_subscription_that_is_there_stays
            s1_an_expired_subscription_is_absent
            s4_a_resumed_subscription_replaces
            d2_subscriptions_come_in_the_order_of_their_connections
            d2_many_subscriptions_come_in_pages
            d3_a_subscription_moves_under_its_own_name_alone
            s6_a_subscription_is_deleted_under_its_own_name_alone
            s6_a_connection_comes_with_its_inverse_rows
            s6_inverse_rows_outlive_their_connection
            s6_an_expired_connection_is_absent
            s1_the_first_link_decides
            s6_a_link_is_deleted_under_its_own_name_alone
            options_are_kept_by_namespace
            namespaces_are_listed_by_name
        }
    };
    (@each $store:expr => $($rule:ident)+) => {$(
        #[tokio::test]
        async fn $rule() {
            $crate::contract::$rule(&$store, stringify!($rule)).await;
        }
    )+};
}

/// The log keeps an event's text as it came: spaces, escapes, order of keys.
pub async fn a1_messages_come_back_byte_for_byte<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let texts = [r#"{ "b":1.0,"a" : 1e2 }"#, r#"{"text":"ü\u00fc\n\" ]"}"#, "[]", r#"{"n":12345678901234567890.10}"#];
    let entry = NewEntry { messages: texts.map(plain).to_vec(), ..entry(&channel, 1, 0, "first") };
    done(store, &entry).await;
    let window = read(store, &channel, 0, None, NO_LIMIT).await;
    let found: Vec<_> = window.messages.iter().map(|message| message.event.as_ref().map(EventJson::as_str)).collect();
    assert_eq!(found, texts.map(Some));
    for (message, offset) in window.messages.iter().zip(1..) {
        assert_eq!((message.offset, message.ts, message.exp), (offset, NOW, LASTING));
    }
    assert!(!window.full);
}

/// TTL deletes late, so a row with a passed `exp` may still be there.
pub async fn a2_an_expired_entry_is_absent_for_readers<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    done(store, &NewEntry { exp: ENDED, ..entry(&channel, 1, 2, "first") }).await;
    assert_eq!(newest(store, &channel, EPOCH).await, None);
    assert_eq!(offsets(&read(store, &channel, 0, None, NO_LIMIT).await), [0; 0]);

    done(store, &NewEntry { exp: ENDING, ..entry(&channel, 3, 2, "second") }).await;
    assert_eq!(offsets(&read(store, &channel, 0, None, NO_LIMIT).await), [3, 4]);
    assert_eq!(offsets(&read(store, &channel, 3, None, NO_LIMIT).await), [4]);
    assert_eq!(newest(store, &channel, EPOCH).await, Some(Tail { last: 4, exp: ENDING, closing: false }));
}

/// The next entry goes to the offset after the last message, not after the last entry.
pub async fn a2_the_newest_entry_tells_the_last_offset<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    assert_eq!(newest(store, &channel, EPOCH).await, None);
    done(store, &entry(&channel, 1, 1, "first")).await;
    assert_eq!(newest(store, &channel, EPOCH).await, Some(Tail { last: 1, exp: LASTING, closing: false }));
    done(store, &entry(&channel, 2, ENTRY_MESSAGES, "second")).await;
    assert_eq!(newest(store, &channel, EPOCH).await, Some(Tail { last: 65, exp: LASTING, closing: false }));
    // As text, "10" sorts before "9".
    for first in 66..=110 {
        done(store, &entry(&channel, first, 1, "more")).await;
    }
    assert_eq!(newest(store, &channel, EPOCH).await, Some(Tail { last: 110, exp: LASTING, closing: false }));
}

/// The first entry and the head's `started` are one transaction.
pub async fn a4_the_first_entry_starts_the_epoch<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let head = new_head(store, &channel).await;
    assert!(!head.started);
    let first = NewEntry { epoch: head.epoch, starts: true, ..entry(&channel, 1, 2, "first") };
    done(store, &first).await;
    assert_eq!(store.head(&channel, NOW).await.expect("an answer"), Some(Head { started: true, ..head.clone() }));
    assert_eq!(newest(store, &channel, head.epoch).await.expect("an entry").last, 2);
}

/// Whoever is not the first learns that the head has moved, and has written nothing.
pub async fn a4_an_epoch_is_started_once_and_only_the_head_s_own<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let starts = |epoch, first, attempt| NewEntry { epoch, starts: true, ..entry(&channel, first, 1, attempt) };
    assert_eq!(append(store, &starts(EPOCH, 1, "no head")).await, AppendOutcome::HeadMoved);

    let head = new_head(store, &channel).await;
    let [before, later] = [Epoch(head.epoch.0 - 1), Epoch(head.epoch.0 + 1)];
    for epoch in [before, later] {
        assert_eq!(append(store, &starts(epoch, 1, "another epoch")).await, AppendOutcome::HeadMoved);
    }
    done(store, &starts(head.epoch, 1, "first")).await;
    assert_eq!(append(store, &starts(head.epoch, 2, "again")).await, AppendOutcome::HeadMoved);
    for epoch in [EPOCH, before, later] {
        assert_eq!(newest(store, &channel, epoch).await, None);
    }
    assert_eq!(newest(store, &channel, head.epoch).await.expect("the first entry").last, 1);

    let expired = self::channel(prefix, "expired");
    let head = store.create_head(&expired, ENDING, NOW).await.expect("an answer");
    let after = NOW.plus(1_000);
    let late = NewEntry { epoch: head.epoch, starts: true, ..entry(&expired, 1, 1, "late") };
    assert_eq!(store.append(&late, after).await.expect("an answer"), AppendOutcome::HeadMoved);
}

/// The old epoch ends with a closing entry, the head is in the new one, unstarted.
pub async fn a4_a_rotation_closes_the_epoch_and_begins_the_next<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let head = started_head(store, &channel, 3).await;
    list(store, &ShardKey::new(&channel, 0)).await;
    let rotation = rotation(&channel, head.epoch, Some(3));
    assert_eq!(store.rotate(&rotation, NOW).await.expect("an answer"), RotateOutcome::Done);

    let tail = newest(store, &channel, head.epoch).await.expect("the closing entry");
    assert_eq!(tail, Tail { last: 3, exp: LASTING, closing: true });
    let new = store.head(&channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!((new.epoch, new.started), (rotation.to, false));
    assert_eq!(new.prev, Some(Previous { epoch: head.epoch, last: Some(3) }));
    assert_eq!(new.listed, BTreeSet::from([0]));
    assert_eq!(newest(store, &channel, rotation.to).await, None);
    let first = NewEntry { epoch: rotation.to, starts: true, ..entry(&channel, 1, 1, "first of the next") };
    done(store, &first).await;
}

/// Where no entry is left, nobody knows the last offset.
pub async fn a4_a_rotation_without_entries_leaves_no_closing_entry<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let head = new_head(store, &channel).await;
    let only = NewEntry { epoch: head.epoch, starts: true, exp: ENDED, ..entry(&channel, 1, 1, "expired") };
    done(store, &only).await;
    let rotation = rotation(&channel, head.epoch, None);
    assert_eq!(store.rotate(&rotation, NOW).await.expect("an answer"), RotateOutcome::Done);
    let new = store.head(&channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!(new.prev, Some(Previous { epoch: head.epoch, last: None }));
    assert_eq!(newest(store, &channel, head.epoch).await, None);
}

/// Of two that rotate, one is too late; so is one without a started head.
pub async fn a4_a_rotation_is_refused_when_the_head_has_moved<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let moved = |rotation| async move { store.rotate(&rotation, NOW).await.expect("an answer") };
    assert_eq!(moved(rotation(&channel, EPOCH, None)).await, RotateOutcome::Moved);
    assert_eq!(store.head(&channel, NOW).await.expect("an answer"), None);

    let unstarted = new_head(store, &channel).await;
    assert_eq!(moved(rotation(&channel, unstarted.epoch, None)).await, RotateOutcome::Moved);

    let first = NewEntry { epoch: unstarted.epoch, starts: true, ..entry(&channel, 1, 1, "first") };
    done(store, &first).await;
    let rotation = rotation(&channel, unstarted.epoch, Some(1));
    assert_eq!(moved(rotation.clone()).await, RotateOutcome::Done);
    assert_eq!(moved(rotation.clone()).await, RotateOutcome::Moved);
    let head = store.head(&channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!((head.epoch, head.started), (rotation.to, false));
}

/// Whoever rotates must have seen the last entry.
pub async fn a4_a_rotation_is_refused_when_the_closing_offset_is_taken<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let head = started_head(store, &channel, 2).await;
    done(store, &NewEntry { epoch: head.epoch, ..entry(&channel, 3, 1, "meanwhile") }).await;
    let outcome = store.rotate(&rotation(&channel, head.epoch, Some(2)), NOW).await.expect("an answer");
    assert_eq!(outcome, RotateOutcome::Moved);
    let there = store.head(&channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!((there.epoch, there.started, there.prev), (head.epoch, true, None));
    assert_eq!(newest(store, &channel, head.epoch).await.expect("an entry").last, 3);
}

/// A head's life is "until … at least".
pub async fn a4_a_rotation_never_shortens_the_head_s_life<S: Store>(store: &S, prefix: &str) {
    for (name, head_exp, expected) in [("shorter", ENDING, LASTING), ("longer", LASTING.plus(9), LASTING.plus(9))] {
        let channel = channel(prefix, name);
        let head = started_head(store, &channel, 1).await;
        let rotation = Rotation { head_exp, ..rotation(&channel, head.epoch, Some(1)) };
        assert_eq!(store.rotate(&rotation, NOW).await.expect("an answer"), RotateOutcome::Done);
        assert_eq!(store.head(&channel, NOW).await.expect("an answer").expect("a head").exp, expected, "{name}");
    }
}

/// An append whose answer was lost comes again under its attempt, and is done.
pub async fn a5_the_same_attempt_is_done<S: Store>(store: &S, prefix: &str) {
    let plain_channel = channel(prefix, "plain");
    let plain = entry(&plain_channel, 1, 2, "mine");
    let marked_channel = channel(prefix, "marked");
    let marked = NewEntry { messages: vec![marked("1"), marked("2")], ..entry(&marked_channel, 1, 0, "mine") };
    let starting_channel = channel(prefix, "starting");
    let head = new_head(store, &starting_channel).await;
    let messages = marked.messages.clone();
    let starting = NewEntry { epoch: head.epoch, starts: true, messages, ..entry(&starting_channel, 1, 0, "mine") };
    for entry in [plain, marked, starting] {
        done(store, &entry).await;
        let later = NewEntry { ts: NOW.plus(5), exp: LASTING.plus(5), ..entry.clone() };
        assert_eq!(append(store, &later).await, AppendOutcome::Done);
        let window = store.read(&entry.channel, entry.epoch, 0, None, NO_LIMIT, NOW).await.expect("an answer");
        assert_eq!(offsets(&window), [1, 2]);
        assert!(window.messages.iter().all(|message| message.ts == NOW), "the first write stands");
    }
}

/// Who finds an offset taken goes on after that entry.
pub async fn a5_a_taken_offset_tells_the_next<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let head = started_head(store, &channel, 3).await;
    let there = NewEntry { epoch: head.epoch, exp: LASTING.plus(9), ..entry(&channel, 4, 5, "theirs") };
    done(store, &there).await;
    let mine = NewEntry { epoch: head.epoch, ..entry(&channel, 4, 1, "mine") };
    let taken = AppendOutcome::Taken { next: 9, exp: LASTING.plus(9), closing: false };
    assert_eq!(append(store, &mine).await, taken);
    assert_eq!(append(store, &NewEntry { messages: vec![marked("1")], ..mine }).await, taken);

    let rotation = rotation(&channel, head.epoch, Some(8));
    assert_eq!(store.rotate(&rotation, NOW).await.expect("an answer"), RotateOutcome::Done);
    let late = NewEntry { epoch: head.epoch, ..entry(&channel, 9, 1, "late") };
    let outcome = append(store, &late).await;
    assert!(matches!(outcome, AppendOutcome::Taken { closing: true, exp: LASTING, .. }), "{outcome:?}");
}

/// A position names one message for ever (I4), so nothing is written over an entry, even one that counts as absent.
pub async fn a5_an_expired_entry_keeps_its_offset<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    done(store, &NewEntry { exp: ENDED, ..entry(&channel, 1, 1, "expired") }).await;
    let expected = AppendOutcome::Taken { next: 2, exp: ENDED, closing: false };
    assert_eq!(append(store, &entry(&channel, 1, 1, "mine")).await, expected);
}

/// A duplicate cancels the whole entry, and tells where the first one is.
pub async fn a5_a_repeated_identity_is_a_duplicate_at_its_first_position<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let messages = vec![marked("1"), plain("{}"), marked("3")];
    done(store, &NewEntry { messages, ..entry(&channel, 1, 0, "first") }).await;

    let messages = vec![plain("{}"), marked("3"), marked("4"), marked("1")];
    let again = NewEntry { messages, ..entry(&channel, 4, 0, "second") };
    let duplicates = vec![(1, Position::new(EPOCH, 3)), (3, Position::new(EPOCH, 1))];
    assert_eq!(append(store, &again).await, AppendOutcome::Duplicates(duplicates));
    assert_eq!(newest(store, &channel, EPOCH).await.expect("the first entry").last, 3);
    done(store, &NewEntry { messages: vec![plain("{}"), marked("4")], ..again }).await;

    let elsewhere = self::channel(prefix, "b");
    done(store, &NewEntry { messages: vec![marked("1")], ..entry(&elsewhere, 1, 0, "another channel") }).await;
}

/// An id is remembered for its time and not longer.
pub async fn a5_an_expired_marker_is_absent<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let with_life =
        |first, markers_exp, attempt| NewEntry { messages: vec![marked("1")], markers_exp, ..entry(&channel, first, 0, attempt) };
    done(store, &with_life(1, ENDED, "first")).await;
    done(store, &with_life(2, ENDING, "second")).await;
    let duplicate = AppendOutcome::Duplicates(vec![(0, Position::new(EPOCH, 2))]);
    assert_eq!(append(store, &with_life(3, LASTING, "third")).await, duplicate);
}

/// Of several reasons against a transaction, the first in this order decides.
pub async fn a5_reasons_count_in_the_order_of_entry_head_and_markers<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let head = new_head(store, &channel).await;
    let first = NewEntry { epoch: head.epoch, starts: true, messages: vec![marked("1")], ..entry(&channel, 1, 0, "first") };
    done(store, &first).await;
    let foreign = NewEntry { attempt: "foreign".to_owned(), ..first.clone() };
    assert_eq!(append(store, &foreign).await, AppendOutcome::Taken { next: 2, exp: LASTING, closing: false });
    assert_eq!(append(store, &first).await, AppendOutcome::Done);
    let beyond = NewEntry { first: 2, ..foreign };
    assert_eq!(append(store, &beyond).await, AppendOutcome::HeadMoved);
    let duplicate = AppendOutcome::Duplicates(vec![(0, Position::new(head.epoch, 1))]);
    assert_eq!(append(store, &NewEntry { starts: false, ..beyond }).await, duplicate);
}

/// Publishers that meet at one offset: one has it, the others learn which is next.
pub async fn a5_of_many_appends_at_one_offset_one_is_done<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let attempts = (0..16).map(|number| {
        // Every second one comes with an id, so that puts and transactions meet.
        let messages = if number % 2 == 0 { vec![plain("{}")] } else { vec![marked(&number.to_string())] };
        let entry = NewEntry { messages, ..entry(&channel, 1, 0, &format!("attempt {number}")) };
        async move {
            loop {
                match append(store, &entry).await {
                    AppendOutcome::Conflict => tokio::task::yield_now().await,
                    outcome => return outcome,
                }
            }
        }
    });
    let outcomes = join_all(attempts).await;
    let done = outcomes.iter().filter(|outcome| **outcome == AppendOutcome::Done).count();
    let taken = AppendOutcome::Taken { next: 2, exp: LASTING, closing: false };
    assert_eq!((done, outcomes.iter().filter(|outcome| **outcome == taken).count()), (1, 15), "{outcomes:?}");
}

/// Nothing is no failure.
pub async fn d2_an_empty_log_is_an_empty_window<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    for (after, upto) in [(0, None), (0, Some(0)), (41, None), (41, Some(50)), (50, Some(41)), (u64::MAX - 1, None)] {
        let window = read(store, &channel, after, upto, NO_LIMIT).await;
        assert_eq!(window, Window::default(), "({after}, {upto:?}]");
    }
}

/// An entry is kept under its first offset, and a reader may begin anywhere in it.
pub async fn d2_a_window_begins_inside_an_entry<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    for (first, count) in [(1, 3), (4, 1), (5, 5), (10, 2)] {
        done(store, &entry(&channel, first, count, "entry")).await;
    }
    for after in 0..=12 {
        let expected: Vec<u64> = (after + 1..=11).collect();
        assert_eq!(offsets(&read(store, &channel, after, None, NO_LIMIT).await), expected, "after {after}");
    }
}

/// `full` tells whether there is more, exactly.
pub async fn d2_a_window_ends_at_its_limit_and_says_whether_there_is_more<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    for (first, count) in [(1, 3), (4, 1), (5, 5), (10, 1)] {
        done(store, &entry(&channel, first, count, "entry")).await;
    }
    for after in 0..10 {
        for limit in 1..=11 {
            let window = read(store, &channel, after, None, limit).await;
            let expected: Vec<u64> = (after + 1..=10).take(limit).collect();
            assert_eq!(offsets(&window), expected, "{limit} after {after}");
            assert_eq!(window.full, after + (limit as u64) < 10, "{limit} after {after}");
        }
    }
}

/// What lies beyond `upto` does not count, for `full` neither.
pub async fn d2_a_window_ends_where_it_is_told<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    for (first, count) in [(1, 4), (5, 4), (9, 4)] {
        done(store, &entry(&channel, first, count, "entry")).await;
    }
    for after in 0..12 {
        for upto in 0..=13 {
            let window = read(store, &channel, after, Some(upto), 3).await;
            let wanted: Vec<u64> = (after + 1..=upto.min(12)).collect();
            assert_eq!(offsets(&window), wanted[..wanted.len().min(3)], "({after}, {upto}]");
            assert_eq!(window.full, wanted.len() > 3, "({after}, {upto}]");
        }
    }
}

/// More rows than one answer of a store may hold.
pub async fn d2_a_window_of_many_small_entries_is_whole<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let entries: Vec<_> = (1..=300).map(|first| entry(&channel, first, 1, "entry")).collect();
    for some in entries.chunks(20) {
        join_all(some.iter().map(|entry| done(store, entry))).await;
    }
    let window = read(store, &channel, 0, None, NO_LIMIT).await;
    assert_eq!(offsets(&window), (1..=300).collect::<Vec<_>>());
    assert!(!window.full);
    let window = read(store, &channel, 3, None, 256).await;
    assert_eq!(offsets(&window), (4..=259).collect::<Vec<_>>());
    assert!(window.full);
}

/// Entries of the largest size: DynamoDB's answers end at 1 MB, after 16 of them.
pub async fn d2_a_window_of_large_entries_is_whole<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let text = format!("\"{}\"", "x".repeat(ENTRY_BYTES / 2 - 2));
    for number in 0..20 {
        let messages = vec![plain(&text), plain(&text)];
        done(store, &NewEntry { messages, ..entry(&channel, 1 + 2 * number, 0, "entry") }).await;
    }
    for after in [0, 1, 33] {
        let window = read(store, &channel, after, None, NO_LIMIT).await;
        assert_eq!(offsets(&window), (after + 1..=40).collect::<Vec<_>>());
        assert!(window.messages.iter().all(|message| message.event.as_ref().is_some_and(|event| event.as_str() == text)));
        assert!(!window.full);
    }
    let window = read(store, &channel, 0, None, 39).await;
    assert_eq!((window.messages.len(), window.full), (39, true));
}

/// Logs do not run into each other.
pub async fn d2_epochs_and_channels_are_logs_of_their_own<S: Store>(store: &S, prefix: &str) {
    let names = ["a", "a/b", "a-1"].map(|name| channel(prefix, name));
    let epochs = [Epoch(7), Epoch(70)];
    for channel in &names {
        for epoch in epochs {
            done(store, &NewEntry { epoch, ..entry(channel, 1, 2, "entry") }).await;
        }
    }
    for channel in &names {
        for epoch in epochs {
            let window = store.read(channel, epoch, 0, None, NO_LIMIT, NOW).await.expect("an answer");
            assert_eq!(offsets(&window), [1, 2], "{channel} {epoch}");
            assert_eq!(newest(store, channel, epoch).await.expect("an entry").last, 2);
        }
    }
}

/// A closing entry holds no message.
pub async fn d2_closing_entries_are_passed_over<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let head = started_head(store, &channel, 2).await;
    let rotation = rotation(&channel, head.epoch, Some(2));
    assert_eq!(store.rotate(&rotation, NOW).await.expect("an answer"), RotateOutcome::Done);
    for (after, limit, expected) in
        [(0, NO_LIMIT, vec![1, 2]), (0, 2, vec![1, 2]), (1, 1, vec![2]), (2, 1, vec![]), (3, 1, vec![])]
    {
        let window = store.read(&channel, head.epoch, after, None, limit, NOW).await.expect("an answer");
        assert_eq!((offsets(&window), window.full), (expected, false), "{limit} after {after}");
    }
}

/// The first head stays, with its epoch.
pub async fn t1_a_head_is_made_once<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    assert_eq!(store.head(&channel, NOW).await.expect("an answer"), None);
    let made = store.create_head(&channel, LASTING, NOW).await.expect("an answer");
    let expected =
        Head { epoch: Epoch(NOW.0), started: false, prev: None, newest_shard: 0, listed: BTreeSet::new(), exp: LASTING };
    assert_eq!(made, expected);
    let later = NOW.plus(5_000);
    assert_eq!(store.create_head(&channel, LASTING.plus(9), later).await.expect("an answer"), expected);
    assert_eq!(store.head(&channel, later).await.expect("an answer"), Some(expected));
}

/// A position is never used twice, even when clocks go backwards.
pub async fn t1_a_head_made_anew_has_a_later_epoch<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let first = store.create_head(&channel, ENDED, NOW).await.expect("an answer");
    assert_eq!(store.head(&channel, NOW).await.expect("an answer"), None);
    let second = store.create_head(&channel, ENDED, NOW).await.expect("an answer");
    assert_eq!((first.epoch, second.epoch), (Epoch(NOW.0), Epoch(NOW.0 + 1)));
    let third = store.create_head(&channel, LASTING, NOW.plus(5_000)).await.expect("an answer");
    assert_eq!((third.epoch, third.started), (Epoch(NOW.0 + 5_000), false));
    assert_eq!(store.head(&channel, NOW.plus(5_000)).await.expect("an answer"), Some(third));
}

/// However many make it, all of them have the same.
pub async fn t1_many_make_one_head<S: Store>(store: &S, prefix: &str) {
    for (name, before) in [("absent", None), ("expired", Some(ENDED))] {
        let channel = channel(prefix, name);
        if let Some(exp) = before {
            store.create_head(&channel, exp, NOW).await.expect("an answer");
        }
        let makers = (0..8).map(|late| store.create_head(&channel, LASTING, NOW.plus(late)));
        let heads: Vec<Head> = join_all(makers).await.into_iter().collect::<Answer<_>>().expect("answers");
        assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
    }
}

/// A life grows, where there is one.
pub async fn t2_a_head_s_life_is_extended_and_never_shortened<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    store.extend_head(&channel, LASTING, NOW).await.expect("an answer");
    assert_eq!(store.head(&channel, NOW).await.expect("an answer"), None);
    store.create_head(&channel, ENDED, NOW).await.expect("an answer");
    store.extend_head(&channel, LASTING, NOW).await.expect("an answer");
    assert_eq!(store.head(&channel, NOW).await.expect("an answer"), None, "what has expired is not revived");

    new_head(store, &channel).await;
    for (wanted, expected) in [(LASTING.plus(9), LASTING.plus(9)), (LASTING, LASTING.plus(9)), (ENDED, LASTING.plus(9))] {
        store.extend_head(&channel, wanted, NOW).await.expect("an answer");
        assert_eq!(store.head(&channel, NOW).await.expect("an answer").expect("a head").exp, expected);
    }
}

/// A life grows, where there is one.
pub async fn t2_a_shard_s_life_is_extended_and_never_shortened<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 2);
    store.extend_shard(&key, LASTING, NOW).await.expect("an answer");
    assert_eq!(store.shard(&key, NOW).await.expect("an answer"), None);
    arrive(store, &key).await;
    for (wanted, expected) in [(LASTING.plus(9), LASTING.plus(9)), (LASTING, LASTING.plus(9)), (ENDED, LASTING.plus(9))] {
        store.extend_shard(&key, wanted, NOW).await.expect("an answer");
        assert_eq!(store.shard(&key, NOW).await.expect("an answer").expect("a shard").exp, expected);
    }
    let after = NOW.plus(4_000_000);
    store.extend_shard(&key, LASTING.plus(99_999), after).await.expect("an answer");
    assert_eq!(store.shard(&key, after).await.expect("an answer"), None, "what has expired is not revived");
}

/// Of many that find a shard full, one adds the next.
pub async fn s5_a_shard_is_added_after_the_newest_alone<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let newest = || async { store.head(&channel, NOW).await.expect("an answer").map(|head| head.newest_shard) };
    store.add_shard(&channel, 0, NOW).await.expect("an answer");
    assert_eq!(newest().await, None);
    new_head(store, &channel).await;
    for (full, expected) in [(1, 0), (0, 1), (0, 1), (1, 2), (0, 2), (1, 2)] {
        store.add_shard(&channel, full, NOW).await.expect("an answer");
        assert_eq!(newest().await, Some(expected), "after shard {full} was full");
    }
}

/// The first arrival makes the row.
pub async fn s2_arrivals_are_counted<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    assert_eq!(store.shard(&key, NOW).await.expect("an answer"), None);
    let first = arrive(store, &key).await;
    assert_eq!((first.generation, first.arrivals, first.listed, first.exp), (1, 1, false, LASTING));
    assert_eq!((first.cursor, &first.checkpoint), (None, &None));
    let second = store.arrive(&key, LASTING.plus(9), NOW).await.expect("an answer");
    assert_eq!((second.generation, second.arrivals, second.exp), (2, 2, LASTING), "an arrival does not touch the life");
    assert_eq!(store.shard(&key, NOW).await.expect("an answer"), Some(second));
    assert_eq!(store.shard(&ShardKey::new(&key.channel, 1), NOW).await.expect("an answer"), None);
}

/// No arrival is lost.
pub async fn s2_many_arrivals_are_all_counted<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    join_all((0..20).map(|_| arrive(store, &key))).await;
    let shard = store.shard(&key, NOW).await.expect("an answer").expect("a shard");
    assert_eq!((shard.arrivals, shard.generation), (20, 20));
}

/// Nothing of an expired row counts: neither cursor nor listing nor lease.
pub async fn s2_an_expired_shard_begins_anew<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    new_head(store, &key.channel).await;
    arrive(store, &key).await;
    list(store, &key).await;
    acquire(store, &key, "holder").await;
    assert!(store.advance(&key, "holder", Position::new(EPOCH, 3)).await.expect("an answer"));

    let after = NOW.plus(4_000_000);
    assert_eq!(store.shard(&key, after).await.expect("an answer"), None);
    let anew = store.arrive(&key, LASTING.plus(99_999), after).await.expect("an answer");
    assert_eq!((anew.arrivals, anew.listed, anew.cursor, anew.exp), (1, false, None, LASTING.plus(99_999)));
    assert!(!store.advance(&key, "holder", Position::new(EPOCH, 4)).await.expect("an answer"), "the lease is gone");
    assert_eq!(store.shard(&key, after).await.expect("an answer"), Some(anew));
}

/// Shard and head agree.
pub async fn s2_listing_marks_shard_and_head<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    let [zero, eleven] = [0, 11].map(|shard| ShardKey::new(&channel, shard));
    new_head(store, &channel).await;
    for key in [&zero, &eleven] {
        arrive(store, key).await;
    }
    for (key, expected) in [(&zero, vec![0]), (&zero, vec![0]), (&eleven, vec![0, 11])] {
        list(store, key).await;
        let head = store.head(&channel, NOW).await.expect("an answer").expect("a head");
        assert_eq!(head.listed, expected.into_iter().collect());
        assert!(store.shard(key, NOW).await.expect("an answer").expect("a shard").listed);
    }
}

/// A listing that could not be seen by publishers is none.
pub async fn s2_listing_needs_both_rows<S: Store>(store: &S, prefix: &str) {
    let listing = |key: ShardKey| async move { store.list(&key, NOW).await.expect("an answer") };
    let headless = ShardKey::new(&channel(prefix, "headless"), 0);
    arrive(store, &headless).await;
    assert_eq!(listing(headless.clone()).await, ListOutcome::Conflict);
    assert!(!store.shard(&headless, NOW).await.expect("an answer").expect("a shard").listed);
    store.create_head(&headless.channel, ENDED, NOW).await.expect("an answer");
    assert_eq!(listing(headless).await, ListOutcome::Conflict);

    let shardless = ShardKey::new(&channel(prefix, "shardless"), 0);
    new_head(store, &shardless.channel).await;
    assert_eq!(listing(shardless.clone()).await, ListOutcome::Conflict);
    let head = store.head(&shardless.channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!(head.listed, BTreeSet::new());
    assert_eq!(store.shard(&shardless, NOW).await.expect("an answer"), None);
}

/// A wake-up makes no shard.
pub async fn d1_a_wake_up_counts_a_shard_s_generation_up<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    store.bump(&key, NOW).await.expect("an answer");
    assert_eq!(store.shard(&key, NOW).await.expect("an answer"), None);
    arrive(store, &key).await;
    store.bump(&key, NOW).await.expect("an answer");
    let shard = store.shard(&key, NOW).await.expect("an answer").expect("a shard");
    assert_eq!((shard.generation, shard.arrivals), (2, 1));
}

/// The lease comes with the row.
pub async fn d1_a_free_lease_is_taken<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let shard = arrive(store, &key).await;
    let leased = store.acquire(&key, "mine", NOW.plus(1), NOW).await.expect("an answer");
    assert_eq!(leased, Leased::Acquired(shard));
    assert_eq!(store.release(&key, "mine", None, None).await.expect("an answer"), Released::Done);
    acquire(store, &key, "another").await;
}

/// Not even under the holder's own name: a message that is delivered twice must not drain twice at once.
pub async fn d1_a_held_lease_is_not_taken<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    arrive(store, &key).await;
    acquire(store, &key, "holder").await;
    for owner in ["another", "holder"] {
        let leased = store.acquire(&key, owner, NOW.plus(60_000), NOW).await.expect("an answer");
        assert_eq!(leased, Leased::Held("holder".to_owned()));
    }
    let leased = store.acquire(&key, "another", NOW.plus(60_000), NOW.plus(LEASE_MS)).await.expect("an answer");
    assert_eq!(leased, Leased::Held("holder".to_owned()), "until its last millisecond");
}

/// A dead holder keeps nobody out for longer than its lease, and writes nothing after it.
pub async fn d1_a_lapsed_lease_is_taken<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    arrive(store, &key).await;
    acquire(store, &key, "dead").await;
    let later = NOW.plus(LEASE_MS + 1);
    let leased = store.acquire(&key, "next", later.plus(LEASE_MS), later).await.expect("an answer");
    assert!(matches!(leased, Leased::Acquired(_)), "{leased:?}");
    let at = Position::new(EPOCH, 9);
    let checkpoint = Checkpoint { cursor: None, end: at, connection: connection_id("c") };
    assert!(!store.advance(&key, "dead", at).await.expect("an answer"));
    assert!(!store.checkpoint(&key, "dead", &checkpoint).await.expect("an answer"));
    assert_eq!(store.release(&key, "dead", Some(at), Some(1)).await.expect("an answer"), Released::Lost);
    assert_eq!(store.release(&key, "dead", None, None).await.expect("an answer"), Released::Lost);
    assert!(!store.unlist(&key, "dead", 1).await.expect("an answer"));
    let shard = store.shard(&key, later).await.expect("an answer").expect("a shard");
    assert_eq!((shard.cursor, shard.checkpoint), (None, None));
}

/// To acquire makes no shard.
pub async fn d1_no_lease_without_a_shard<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let leased = store.acquire(&key, "mine", NOW.plus(1), NOW).await.expect("an answer");
    assert_eq!(leased, Leased::Absent);
    arrive(store, &key).await;
    let after = NOW.plus(4_000_000);
    assert_eq!(store.acquire(&key, "mine", after.plus(1), after).await.expect("an answer"), Leased::Absent);
}

/// The cursor is the holder's.
pub async fn d4_only_the_holder_moves_the_cursor<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let at = Position::new(Epoch(u64::MAX / 4), 12);
    assert!(!store.advance(&key, "mine", at).await.expect("an answer"), "there is no shard");
    assert_eq!(store.shard(&key, NOW).await.expect("an answer"), None);
    arrive(store, &key).await;
    assert!(!store.advance(&key, "mine", at).await.expect("an answer"), "nobody holds it");
    acquire(store, &key, "mine").await;
    for another in ["another", "somebody"] {
        assert!(!store.advance(&key, another, at).await.expect("an answer"));
    }
    assert_eq!(store.shard(&key, NOW).await.expect("an answer").expect("a shard").cursor, None);
    assert!(store.advance(&key, "mine", at).await.expect("an answer"));
    assert_eq!(store.shard(&key, NOW).await.expect("an answer").expect("a shard").cursor, Some(at));
}

/// Whoever came or published meanwhile is not left waiting.
pub async fn d4_a_release_needs_the_generation_unchanged<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let at = Position::new(EPOCH, 12);
    arrive(store, &key).await;
    let shard = acquire(store, &key, "mine").await;
    store.bump(&key, NOW).await.expect("an answer");
    let released = store.release(&key, "mine", Some(at), Some(shard.generation)).await.expect("an answer");
    assert_eq!(released, Released::Changed);
    assert_eq!(store.shard(&key, NOW).await.expect("an answer").expect("a shard").cursor, None);
    let held = store.acquire(&key, "another", NOW.plus(1), NOW).await.expect("an answer");
    assert_eq!(held, Leased::Held("mine".to_owned()));

    let generation = Some(shard.generation + 1);
    assert_eq!(store.release(&key, "another", Some(at), generation).await.expect("an answer"), Released::Lost);
    assert_eq!(store.release(&key, "mine", Some(at), generation).await.expect("an answer"), Released::Done);
    assert_eq!(store.shard(&key, NOW).await.expect("an answer").expect("a shard").cursor, Some(at));
    assert_eq!(store.release(&key, "mine", Some(at), generation).await.expect("an answer"), Released::Lost);
    acquire(store, &key, "another").await;
}

/// A round that stops early leaves its checkpoint to whoever goes on.
pub async fn d4_a_release_without_a_generation_leaves_the_rest<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let at = Position::new(EPOCH, 12);
    arrive(store, &key).await;
    acquire(store, &key, "mine").await;
    assert!(store.advance(&key, "mine", at).await.expect("an answer"));
    let checkpoint = Checkpoint { cursor: Some(at), end: Position::new(EPOCH, 20), connection: connection_id("c") };
    assert!(store.checkpoint(&key, "mine", &checkpoint).await.expect("an answer"));
    store.bump(&key, NOW).await.expect("an answer");
    assert_eq!(store.release(&key, "mine", None, None).await.expect("an answer"), Released::Done);
    let shard = acquire(store, &key, "another").await;
    assert_eq!((shard.cursor, shard.checkpoint), (Some(at), Some(checkpoint)));
}

/// A shard that has drained nothing yet has no cursor.
pub async fn d4_a_release_without_a_cursor_writes_none<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    arrive(store, &key).await;
    let shard = acquire(store, &key, "mine").await;
    let end = Position::new(EPOCH, 20);
    let checkpoint = Checkpoint { cursor: None, end, connection: connection_id("c") };
    assert!(store.checkpoint(&key, "mine", &checkpoint).await.expect("an answer"));
    let released = store.release(&key, "mine", None, Some(shard.generation)).await.expect("an answer");
    assert_eq!(released, Released::Done);
    let shard = acquire(store, &key, "another").await;
    assert_eq!((shard.cursor, shard.checkpoint), (None, None));

    assert!(store.advance(&key, "another", end).await.expect("an answer"));
    let released = store.release(&key, "another", None, Some(shard.generation)).await.expect("an answer");
    assert_eq!(released, Released::Done);
    assert_eq!(store.shard(&key, NOW).await.expect("an answer").expect("a shard").cursor, Some(end));
}

/// A drain that is put off gives its lease back, and what it says stays with the row.
pub async fn p2_the_holder_alone_puts_a_drain_off<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::mqtt(&channel(prefix, "a"));
    let at = Position::new(EPOCH, 12);
    arrive(store, &key).await;
    acquire(store, &key, "mine").await;
    assert!(!store.postpone(&key, "another", Some(at), NOW.plus(1)).await.expect("an answer"));
    assert!(store.postpone(&key, "mine", None, NOW.plus(1)).await.expect("an answer"));
    let shard = acquire(store, &key, "next").await;
    assert_eq!((shard.cursor, shard.retry_at), (None, Some(NOW.plus(1))));
    assert!(store.postpone(&key, "next", Some(at), NOW.plus(2)).await.expect("an answer"));
    assert!(!store.postpone(&key, "next", None, NOW.plus(3)).await.expect("an answer"), "the lease is given back");
    let shard = acquire(store, &key, "last").await;
    assert_eq!((shard.cursor, shard.retry_at), (Some(at), Some(NOW.plus(2))));
    let subscriptions = ShardKey::new(&key.channel, 0);
    assert_eq!(store.shard(&subscriptions, NOW).await.expect("an answer"), None, "it is a shard of its own");
}

/// The next subscriber begins at its own `from`, and the other shards stay listed.
pub async fn d5_an_unlisted_shard_is_as_new<S: Store>(store: &S, prefix: &str) {
    let channel = channel(prefix, "a");
    new_head(store, &channel).await;
    let [zero, one] = [0, 1].map(|shard| ShardKey::new(&channel, shard));
    for key in [&zero, &one] {
        arrive(store, key).await;
        list(store, key).await;
    }
    let at = Position::new(EPOCH, 12);
    let shard = acquire(store, &zero, "mine").await;
    assert!(store.advance(&zero, "mine", at).await.expect("an answer"));
    let checkpoint = Checkpoint { cursor: Some(at), end: at, connection: connection_id("c") };
    assert!(store.checkpoint(&zero, "mine", &checkpoint).await.expect("an answer"));
    assert!(store.unlist(&zero, "mine", shard.generation).await.expect("an answer"));

    let head = store.head(&channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!(head.listed, BTreeSet::from([1]));
    let shard = acquire(store, &zero, "another").await;
    assert_eq!((shard.listed, shard.cursor, shard.checkpoint, shard.arrivals), (false, None, None, 1));
    let shard = acquire(store, &one, "another").await;
    assert!(store.unlist(&one, "another", shard.generation).await.expect("an answer"));
    let head = store.head(&channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!(head.listed, BTreeSet::new());
    list(store, &zero).await;
    let head = store.head(&channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!(head.listed, BTreeSet::from([0]));
}

/// Who arrived meanwhile stays listed.
pub async fn d5_unlisting_needs_holder_and_generation<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    assert!(!store.unlist(&key, "mine", 0).await.expect("an answer"), "there is no shard");
    new_head(store, &key.channel).await;
    arrive(store, &key).await;
    list(store, &key).await;
    assert!(!store.unlist(&key, "mine", 1).await.expect("an answer"), "nobody holds it");
    let shard = acquire(store, &key, "mine").await;
    assert!(!store.unlist(&key, "another", shard.generation).await.expect("an answer"));
    arrive(store, &key).await;
    assert!(!store.unlist(&key, "mine", shard.generation).await.expect("an answer"));
    let head = store.head(&key.channel, NOW).await.expect("an answer").expect("a head");
    assert_eq!(head.listed, BTreeSet::from([0]));
    let there = store.shard(&key, NOW).await.expect("an answer").expect("a shard");
    assert!(there.listed);
    assert_eq!(store.release(&key, "mine", None, None).await.expect("an answer"), Released::Done);
}

/// A shard can outlive its head by a moment.
pub async fn d5_unlisting_works_without_a_head<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    arrive(store, &key).await;
    let shard = acquire(store, &key, "mine").await;
    assert!(!store.unlist(&key, "mine", shard.generation + 1).await.expect("an answer"));
    assert!(store.unlist(&key, "mine", shard.generation).await.expect("an answer"));
    assert_eq!(store.head(&key.channel, NOW).await.expect("an answer"), None);
    acquire(store, &key, "another").await;
}

/// What a round has done is known to the next holder until the round is over.
pub async fn d6_a_checkpoint_is_kept_until_the_cursor_moves<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let at = |offset| Position::new(EPOCH, offset);
    arrive(store, &key).await;
    acquire(store, &key, "mine").await;
    for cursor in [None, Some(at(3))] {
        let checkpoint = Checkpoint { cursor, end: at(9), connection: connection_id("L0SM9cOFvHcCIhw=") };
        for another in ["another", "somebody"] {
            assert!(!store.checkpoint(&key, another, &checkpoint).await.expect("an answer"));
        }
        assert!(store.checkpoint(&key, "mine", &checkpoint).await.expect("an answer"));
        let shard = store.shard(&key, NOW).await.expect("an answer").expect("a shard");
        assert_eq!(shard.checkpoint, Some(checkpoint));
    }
    assert!(store.advance(&key, "mine", at(9)).await.expect("an answer"));
    let shard = store.shard(&key, NOW).await.expect("an answer").expect("a shard");
    assert_eq!((shard.cursor, shard.checkpoint), (Some(at(9)), None));
}

/// A second subscribe without a position changes nothing.
pub async fn s1_a_subscription_that_is_there_stays<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let first = subscription(&key, "c", "first");
    let second = Subscription { state: SubscriptionState::Joining, ..subscription(&key, "c", "second") };
    assert_eq!(subscribe(store, &first, false).await, PutOutcome::Put);
    assert_eq!(subscribe(store, &second, false).await, PutOutcome::Kept(first.clone()));
    assert_eq!(page(store, &key, None).await, (vec![first], false));
    let elsewhere = subscription(&ShardKey::new(&key.channel, 1), "c", "second");
    assert_eq!(subscribe(store, &elsewhere, false).await, PutOutcome::Put);
}

/// A row that TTL has yet to delete keeps nobody out and gets nothing.
pub async fn s1_an_expired_subscription_is_absent<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let expired = Subscription { exp: ENDED, ..subscription(&key, "c", "expired") };
    assert_eq!(subscribe(store, &expired, false).await, PutOutcome::Put);
    assert_eq!(page(store, &key, None).await, (vec![], false));
    let ending = Subscription { exp: ENDING, ..subscription(&key, "c", "ending") };
    assert_eq!(subscribe(store, &ending, false).await, PutOutcome::Put);
    assert_eq!(page(store, &key, None).await, (vec![ending.clone()], false));
    let late = subscription(&key, "c", "late");
    assert_eq!(subscribe(store, &late, false).await, PutOutcome::Kept(ending));
}

/// A recovered position takes the old row's place under a new name.
pub async fn s4_a_resumed_subscription_replaces<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let first = subscription(&key, "c", "first");
    let from = Position::new(Epoch(1), 2);
    let resumed = Subscription { state: SubscriptionState::Joining, from, ..subscription(&key, "c", "resumed") };
    for row in [&first, &resumed] {
        assert_eq!(subscribe(store, row, true).await, PutOutcome::Put);
    }
    assert_eq!(page(store, &key, None).await, (vec![resumed], false));
    assert!(!store.move_to(&first, from, SubscriptionState::Live).await.expect("an answer"));
}

/// A checkpoint says "all up to this connection", so their order is one.
pub async fn d2_subscriptions_come_in_the_order_of_their_connections<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 1);
    arrive(store, &key).await;
    assert_eq!(page(store, &key, None).await, (vec![], false));
    let names = ["=", "A", "B-", "Z9=", "_", "a", "b=", "~"];
    for name in names.iter().rev() {
        subscribe(store, &subscription(&key, name, "rid"), false).await;
    }
    for shard in [0, 10, 11] {
        let other = ShardKey::new(&key.channel, shard);
        subscribe(store, &subscription(&other, "m", "other"), false).await;
    }
    let found: Vec<_> = all_pages(store, &key).await.into_iter().map(|row| row.connection.to_string()).collect();
    assert_eq!(found, names);
}

/// However many there are, each comes once.
pub async fn d2_many_subscriptions_come_in_pages<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let mut rows: Vec<_> = (0..1_100).map(|number| subscription(&key, &format!("c{number:04}"), "rid")).collect();
    // A page full of expired rows must not end the list.
    for row in &mut rows[100..700] {
        row.exp = ENDED;
    }
    for some in rows.chunks(50) {
        join_all(some.iter().map(|row| subscribe(store, row, false))).await;
    }
    rows.retain(|row| row.exp != ENDED);
    assert_eq!(all_pages(store, &key).await, rows);
    let (tail, more) = page(store, &key, Some(&connection_id("c1097"))).await;
    assert_eq!((tail, more), (rows[rows.len() - 2..].to_vec(), false));
}

/// A row that took another's place is not moved by it.
pub async fn d3_a_subscription_moves_under_its_own_name_alone<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let row = Subscription { state: SubscriptionState::Joining, ..subscription(&key, "c", "mine") };
    let to = Position::new(Epoch(8), 99);
    assert!(!store.move_to(&row, to, SubscriptionState::Live).await.expect("an answer"), "there is no row");
    assert_eq!(page(store, &key, None).await, (vec![], false));
    subscribe(store, &row, false).await;
    let other = Subscription { rid: "other".to_owned(), ..row.clone() };
    assert!(!store.move_to(&other, to, SubscriptionState::Live).await.expect("an answer"));
    assert_eq!(page(store, &key, None).await, (vec![row.clone()], false));
    assert!(store.move_to(&row, to, SubscriptionState::Live).await.expect("an answer"));
    let moved = Subscription { from: to, state: SubscriptionState::Live, ..row };
    assert_eq!(page(store, &key, None).await, (vec![moved], false));
}

/// A row that took another's place is not deleted in its stead.
pub async fn s6_a_subscription_is_deleted_under_its_own_name_alone<S: Store>(store: &S, prefix: &str) {
    let key = ShardKey::new(&channel(prefix, "a"), 0);
    let row = subscription(&key, "c", "mine");
    subscribe(store, &row, false).await;
    let delete = |rid: &'static str| {
        let (key, connection) = (&key, &row.connection);
        async move { store.unsubscribe(key, connection, rid).await.expect("an answer") }
    };
    assert!(!delete("other").await);
    assert_eq!(page(store, &key, None).await, (vec![row.clone()], false));
    assert!(delete("mine").await);
    assert_eq!(page(store, &key, None).await, (vec![], false));
    assert!(!delete("mine").await, "it is gone");
}

/// One query tells who it is and what it listens to.
pub async fn s6_a_connection_comes_with_its_inverse_rows<S: Store>(store: &S, prefix: &str) {
    let there = connection(prefix);
    let look = || async { store.connection(&there.id, NOW).await.expect("an answer") };
    assert_eq!(look().await, (None, vec![]));
    store.connect(&there).await.expect("an answer");
    assert_eq!(look().await, (Some(there.clone()), vec![]));
    let inverses: Vec<_> = ["a", "b", "b/c"]
        .into_iter()
        .zip(7..)
        .map(|(name, shard)| Inverse { key: ShardKey::new(&channel(prefix, name), shard), rid: format!("rid {name}") })
        .collect();
    for inverse in &inverses {
        assert_eq!(link(store, &there.id, inverse, false).await, None);
    }
    let (found, mut linked) = look().await;
    linked.sort_by(|left, right| left.key.cmp(&right.key));
    assert_eq!((found, linked), (Some(there.clone()), inverses));
    let again = Connection { connected_at: NOW.plus(1), ..there.clone() };
    store.connect(&again).await.expect("an answer");
    assert_eq!(look().await.0, Some(again));
}

/// `$disconnect` deletes the connection first, and then looks what it listened to.
pub async fn s6_inverse_rows_outlive_their_connection<S: Store>(store: &S, prefix: &str) {
    let there = connection(prefix);
    store.connect(&there).await.expect("an answer");
    let inverse = Inverse { key: ShardKey::new(&channel(prefix, "a"), 3), rid: "rid".to_owned() };
    link(store, &there.id, &inverse, false).await;
    for _ in 0..2 {
        store.disconnect(&there.id).await.expect("an answer");
        assert_eq!(store.connection(&there.id, NOW).await.expect("an answer"), (None, vec![inverse.clone()]));
    }
}

/// A connection whose `$disconnect` was lost is gone all the same.
pub async fn s6_an_expired_connection_is_absent<S: Store>(store: &S, prefix: &str) {
    let there = Connection { exp: ENDED, ..connection(prefix) };
    store.connect(&there).await.expect("an answer");
    let key = ShardKey::new(&channel(prefix, "a"), 3);
    let inverse = Inverse { key, rid: "rid".to_owned() };
    let expired = Link { connection: there.id.clone(), inverse: inverse.clone(), exp: ENDED };
    assert_eq!(store.link(&expired, false, NOW).await.expect("an answer"), None);
    assert_eq!(store.connection(&there.id, NOW).await.expect("an answer"), (None, vec![]));
    assert_eq!(link(store, &there.id, &inverse, false).await, None, "what has expired decides nothing");
    assert_eq!(store.connection(&there.id, NOW).await.expect("an answer"), (None, vec![inverse]));
}

/// Two subscribes at once agree on one shard.
pub async fn s1_the_first_link_decides<S: Store>(store: &S, prefix: &str) {
    let id = connection_id(prefix);
    let inverse = |shard, rid: &str| Inverse { key: ShardKey::new(&channel(prefix, "a"), shard), rid: rid.to_owned() };
    let look = || async { store.connection(&id, NOW).await.expect("an answer").1 };
    assert_eq!(link(store, &id, &inverse(0, "first"), false).await, None);
    assert_eq!(link(store, &id, &inverse(1, "second"), false).await, Some(inverse(0, "first")));
    assert_eq!(look().await, [inverse(0, "first")]);
    assert_eq!(link(store, &id, &inverse(0, "third"), true).await, None);
    assert_eq!(look().await, [inverse(0, "third")]);
}

/// A link that took another's place is not deleted in its stead.
pub async fn s6_a_link_is_deleted_under_its_own_name_alone<S: Store>(store: &S, prefix: &str) {
    let id = connection_id(prefix);
    let [first, second] =
        ["a", "b"].map(|name| Inverse { key: ShardKey::new(&channel(prefix, name), 0), rid: "mine".to_owned() });
    for inverse in [&first, &second] {
        link(store, &id, inverse, false).await;
    }
    store.unlink(&id, &first.key.channel, "other").await.expect("an answer");
    assert_eq!(store.connection(&id, NOW).await.expect("an answer").1.len(), 2);
    store.unlink(&id, &first.key.channel, "mine").await.expect("an answer");
    assert_eq!(store.connection(&id, NOW).await.expect("an answer").1, [second]);
    store.unlink(&id, &first.key.channel, "mine").await.expect("an answer");
}

/// Options belong to one namespace, and the last setting stands.
pub async fn options_are_kept_by_namespace<S: Store>(store: &S, prefix: &str) {
    let [mine, other] = ["1", "2"].map(|name| namespace(prefix, name));
    let options = |history_size: u32| NamespaceOptions {
        history_size,
        history_age_s: 60,
        max_event_bytes: 1_024,
        mqtt: history_size == 0,
        retain: history_size == 0,
        mqtt_since: (history_size == 100_000).then_some(NOW),
    };
    assert_eq!(store.namespace(&mine).await.expect("an answer"), None);
    for size in [0, 100_000] {
        store.set_namespace(&mine, &options(size)).await.expect("an answer");
        assert_eq!(store.namespace(&mine).await.expect("an answer"), Some(options(size)));
    }
    assert_eq!(store.namespace(&other).await.expect("an answer"), None);
}

/// The list holds every namespace that has options, once.
pub async fn namespaces_are_listed_by_name<S: Store>(store: &S, prefix: &str) {
    let names = ["a", "b", "c"].map(|name| namespace(prefix, name));
    let options = NamespaceOptions { history_age_s: 61, ..NamespaceOptions::default() };
    for name in [&names[2], &names[0], &names[1], &names[0]] {
        store.set_namespace(name, &options).await.expect("an answer");
    }
    let mut listed = store.namespaces().await.expect("an answer");
    assert!(listed.is_sorted_by(|left, right| left.0 < right.0), "{listed:?}");
    listed.retain(|(name, _)| names.contains(name));
    assert_eq!(listed, names.map(|name| (name, options)));
}

/// How long [`acquire`] takes a lease for, in milliseconds.
const LEASE_MS: u64 = 17_000;

fn channel(prefix: &str, name: &str) -> Channel {
    Channel::parse(&format!("{prefix}/{name}")).expect("the rule's name is a segment")
}

fn namespace(prefix: &str, name: &str) -> Namespace {
    Namespace::parse(&format!("{prefix}-{name}")).expect("the rule's name is a segment")
}

fn connection_id(text: &str) -> ConnectionId {
    ConnectionId::try_new(text).expect("an id")
}

fn plain(json: &str) -> NewMessage {
    NewMessage { event: EventJson::from_log(json), identity: None }
}

fn marked(id: &str) -> NewMessage {
    NewMessage { event: EventJson::from_log(format!("{{\"id\":\"{id}\"}}")), identity: Some(Identity::new("source", id)) }
}

fn entry(channel: &Channel, first: u64, count: usize, attempt: &str) -> NewEntry {
    NewEntry {
        channel: channel.clone(),
        epoch: EPOCH,
        first,
        messages: (0..count).map(|number| plain(&format!("{{\"id\":\"{number}\"}}"))).collect(),
        attempt: attempt.to_owned(),
        ts: NOW,
        exp: LASTING,
        markers_exp: LASTING,
        starts: false,
    }
}

fn rotation(channel: &Channel, from: Epoch, last: Option<u64>) -> Rotation {
    let to = Epoch::next(Some(from), NOW);
    Rotation { channel: channel.clone(), from, to, last, closing_exp: LASTING, head_exp: LASTING }
}

fn subscription(key: &ShardKey, connection: &str, rid: &str) -> Subscription {
    Subscription {
        key: key.clone(),
        connection: connection_id(connection),
        rid: rid.to_owned(),
        from: Position::new(EPOCH, 5),
        state: SubscriptionState::Live,
        dialect: Dialect::Native,
        connected_at: Millis(NOW.0 - 60_123),
        exp: LASTING,
    }
}

fn connection(id: &str) -> Connection {
    Connection {
        id: connection_id(id),
        principal: Principal::shared(),
        dialect: Dialect::Native,
        connected_at: Millis(NOW.0 - 60_123),
        exp: LASTING,
    }
}

fn offsets(window: &Window) -> Vec<u64> {
    window.messages.iter().map(|message: &Logged| message.offset).collect()
}

async fn append<S: Store>(store: &S, entry: &NewEntry) -> AppendOutcome {
    store.append(entry, NOW).await.expect("an answer")
}

async fn done<S: Store>(store: &S, entry: &NewEntry) {
    assert_eq!(append(store, entry).await, AppendOutcome::Done, "the entry at offset {}", entry.first);
}

async fn read<S: Store>(store: &S, channel: &Channel, after: u64, upto: Option<u64>, limit: usize) -> Window {
    store.read(channel, EPOCH, after, upto, limit, NOW).await.expect("an answer")
}

async fn newest<S: Store>(store: &S, channel: &Channel, epoch: Epoch) -> Option<Tail> {
    store.newest(channel, epoch, NOW).await.expect("an answer")
}

async fn new_head<S: Store>(store: &S, channel: &Channel) -> Head {
    store.create_head(channel, LASTING, NOW).await.expect("an answer")
}

/// A head whose epoch has one entry with `count` messages.
async fn started_head<S: Store>(store: &S, channel: &Channel, count: usize) -> Head {
    let head = new_head(store, channel).await;
    done(store, &NewEntry { epoch: head.epoch, starts: true, ..entry(channel, 1, count, "start") }).await;
    Head { started: true, ..head }
}

async fn arrive<S: Store>(store: &S, key: &ShardKey) -> crate::rows::Shard {
    store.arrive(key, LASTING, NOW).await.expect("an answer")
}

/// Lists a shard, which arrives first if it has to.
async fn list<S: Store>(store: &S, key: &ShardKey) {
    if store.shard(key, NOW).await.expect("an answer").is_none() {
        arrive(store, key).await;
    }
    assert_eq!(store.list(key, NOW).await.expect("an answer"), ListOutcome::Done);
}

async fn acquire<S: Store>(store: &S, key: &ShardKey, owner: &str) -> crate::rows::Shard {
    match store.acquire(key, owner, NOW.plus(LEASE_MS), NOW).await.expect("an answer") {
        Leased::Acquired(shard) => shard,
        other => panic!("the lease of {key} is not free: {other:?}"),
    }
}

async fn subscribe<S: Store>(store: &S, row: &Subscription, replace: bool) -> PutOutcome {
    store.subscribe(row, replace, NOW).await.expect("an answer")
}

async fn page<S: Store>(store: &S, key: &ShardKey, after: Option<&ConnectionId>) -> (Vec<Subscription>, bool) {
    store.page(key, after, NOW).await.expect("an answer")
}

async fn all_pages<S: Store>(store: &S, key: &ShardKey) -> Vec<Subscription> {
    let mut rows: Vec<Subscription> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.connection.clone());
        let (some, more) = page(store, key, after.as_ref()).await;
        assert!(!more || !some.is_empty(), "a page that is not the last has a row to go on after");
        rows.extend(some);
        if !more {
            return rows;
        }
    }
}

async fn link<S: Store>(store: &S, id: &ConnectionId, inverse: &Inverse, replace: bool) -> Option<Inverse> {
    let link = Link { connection: id.clone(), inverse: inverse.clone(), exp: LASTING };
    store.link(&link, replace, NOW).await.expect("an answer")
}
