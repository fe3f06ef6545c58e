use super::*;

const MIB: usize = 1024 * 1024;

fn sharing(pool: &Arc<Pool>) -> Control {
    Control::sharing(Duration::from_secs(60), Arc::clone(pool))
}

#[test]
fn what_one_query_gives_back_another_gets() {
    let pool = Pool::new(4 * MIB);
    let first = sharing(&pool);
    first.reserve(3 * MIB).unwrap();
    assert_eq!(pool.used_bytes(), 3 * MIB);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| sharing(&pool).reserve(2 * MIB));
        // It waits, or will, until there is room.
        first.release(2 * MIB);
        assert_eq!(second.join().unwrap(), Ok(()));
    });
    drop(first);
    assert_eq!(pool.used_bytes(), 0);
    assert!((3 * MIB..=4 * MIB).contains(&pool.peak_bytes()), "{}", pool.peak_bytes());
}

#[test]
fn a_query_that_waits_for_memory_ends_when_its_client_leaves() {
    let pool = Pool::new(MIB);
    let first = sharing(&pool);
    first.reserve(MIB).unwrap();
    let second = sharing(&pool);
    second.cancel();
    assert_eq!(second.reserve(1), Err(Stopped::Cancelled));
    assert_eq!(first.reserve(1), Err(Stopped::MemoryOver(MIB)), "more than all there is");
}

#[test]
fn a_thread_that_waits_does_not_keep_others_of_its_query_from_giving_back() {
    let pool = Pool::new(4 * MIB);
    let (query, other) = (sharing(&pool), sharing(&pool));
    other.reserve(2 * MIB).unwrap();
    query.reserve(2 * MIB).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| query.reserve(MIB));
        // Should it give up before, that shows below.
        while query.used_bytes() < 3 * MIB && !waits.is_finished() {
            std::thread::yield_now();
        }
        // Given back by the query itself while one of its threads waits for it.
        query.release(2 * MIB);
        assert_eq!(waits.join().unwrap(), Ok(()));
    });
    assert_eq!(query.used_bytes(), MIB);
}

#[test]
fn a_loan_takes_what_queries_leave_and_leaves_something_to_light_ones() {
    let pool = Pool::new(32 * MIB);
    let loan = pool.lend(8 * MIB, 40 * MIB, Duration::ZERO, || true).unwrap();
    assert_eq!(loan.bytes(), 32 * MIB - LEFT_BYTES);
    sharing(&pool).reserve(LIGHT_BYTES).unwrap();
    drop(loan);
    let heavy = sharing(&pool);
    heavy.reserve(20 * MIB).unwrap();
    let loan = pool.lend(8 * MIB, 24 * MIB, Duration::ZERO, || true).unwrap();
    assert_eq!(loan.bytes(), 8 * MIB, "a smaller one, beside a heavy query");
    assert!(pool.lend(8 * MIB, 24 * MIB, Duration::ZERO, || false).is_none());
    drop((loan, heavy));
    assert_eq!((pool.used_bytes(), pool.peak_bytes()), (0, 28 * MIB));
    let mut loan = pool.lend(MIB, MIB, Duration::ZERO, || true).unwrap();
    loan.shrink_to(1000);
    assert_eq!((loan.bytes(), pool.used_bytes()), (1000, 1000));
}

#[test]
fn who_holds_much_gets_more_before_a_loan_and_new_queries_only_what_is_light() {
    let pool = Pool::new(32 * MIB);
    let (heavy, light) = (sharing(&pool), sharing(&pool));
    heavy.reserve(20 * MIB).unwrap();
    std::thread::scope(|scope| {
        let loan = scope.spawn(|| pool.lend(20 * MIB, 20 * MIB, Duration::ZERO, || true).map(|loan| loan.bytes()));
        while pool.free().loans_waiting == 0 {
            std::thread::yield_now();
        }
        light.reserve(LIGHT_BYTES / 2).unwrap();
        assert_eq!(pool.take(0, LIGHT_BYTES + 1, LIGHT_BYTES + 1), 0, "more than light");
        assert_eq!(pool.take(0, 1, 2 * LIGHT_BYTES), LIGHT_BYTES, "no more than light");
        pool.give_back(LIGHT_BYTES);
        heavy.reserve(4 * MIB).unwrap();
        drop(heavy);
        assert_eq!(loan.join().unwrap(), Some(20 * MIB));
    });
}

#[test]
fn a_query_waits_for_a_loan_to_be_given_back() {
    let pool = Pool::new(32 * MIB);
    let loan = pool.lend(8 * MIB, 24 * MIB, Duration::ZERO, || true).unwrap();
    std::thread::scope(|scope| {
        let heavy = scope.spawn(|| sharing(&pool).reserve(30 * MIB));
        while pool.free().queries_waiting.is_empty() && !heavy.is_finished() {
            std::thread::yield_now();
        }
        drop(loan);
        assert_eq!(heavy.join().unwrap(), Ok(()));
    });
    assert_eq!((pool.used_bytes(), pool.peak_bytes()), (0, 30 * MIB));
}

#[test]
fn of_two_that_wait_for_each_other_the_younger_gives_in_and_runs_again() {
    let pool = Pool::new(32 * MIB);
    let (older, younger) = (sharing(&pool), sharing(&pool));
    let both_hold = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let mut runs = 0;
            let done = younger.again(
                || {
                    runs += 1;
                    let mut booked = younger.book(15 * MIB)?;
                    if runs == 1 {
                        both_hold.wait();
                    }
                    booked.grow(10 * MIB)
                },
                |stopped| matches!(stopped, Stopped::MemoryBusy(_)),
            );
            (done, runs)
        });
        let mut booked = older.book(15 * MIB).unwrap();
        both_hold.wait();
        booked.grow(10 * MIB).unwrap();
        drop((booked, older));
        assert_eq!(second.join().unwrap(), (Ok(()), 2));
    });
    drop(younger);
    assert_eq!(pool.used_bytes(), 0);
}

#[test]
fn what_is_refused_is_not_booked_and_what_is_kept_outlives_its_query() {
    let pool = Pool::new(MIB);
    let query = sharing(&pool);
    let mut kept = query.book(1000).unwrap();
    assert_eq!(kept.grow(MIB), Err(Stopped::MemoryOver(MIB)));
    assert_eq!((kept.bytes(), query.used_bytes()), (1000, 1000));
    drop(query);
    assert!(pool.used_bytes() >= 1000);
    drop(kept);
    assert_eq!(pool.used_bytes(), 0);
}

#[test]
fn a_query_that_is_over_holds_its_answer_alone() {
    let pool = Pool::new(4 * MIB);
    let query = sharing(&pool);
    query.reserve(3 * MIB).unwrap();
    query.settle(1000).unwrap();
    assert_eq!((query.used_bytes(), pool.used_bytes()), (1000, PORTION_BYTES));
    query.settle(2 * MIB).unwrap();
    assert_eq!(pool.used_bytes(), 2 * MIB);
}

#[test]
fn any_steps_leave_the_pool_as_it_was() {
    let pool = Pool::new(4 * MIB);
    {
        let control = sharing(&pool);
        for step in 1..200usize {
            control.reserve(step * 100).unwrap();
            assert!(pool.used_bytes() >= control.used_bytes() && pool.used_bytes() <= 4 * MIB);
            if step % 3 == 0 {
                control.release(step * 100);
            }
        }
        let _ = control.reserve(4 * MIB);
    }
    assert_eq!(pool.used_bytes(), 0);
}
