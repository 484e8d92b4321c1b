//! One run: a store, its threads, what is left in the end, and the verdict.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use exuvia::engine::MemoryEngine;
use exuvia::{Durability, Result, Store};

use super::model::{Op, State, Verb};
use super::program::{Program, Rng, Theme};
use super::world::{Action, Log, World, judge};
use super::{Event, Model};

/// Where a run takes place: which engine, and whose threads.
pub trait Host {
    /// Opens the store, for the first time or again.
    fn open(&self, durability: Durability) -> Result<Store>;

    /// The engine, if it can say what a loss of power leaves.
    fn recording(&self) -> Option<&MemoryEngine>;

    /// Runs all of them at once, and waits for them.
    fn run(&self, threads: Vec<Box<dyn FnOnce() + Send>>);

    fn give_turn();
}

/// A store as a loss of power left it, and when that was.
struct Image {
    /// It is of a moment between these two.
    at: u64,
    ends: u64,
    engine: MemoryEngine,
}

/// Runs a program. The error is a history to be read by a person.
pub fn run<H: Host>(program: &Program, rng: &mut Rng, host: &H) -> std::result::Result<(), String> {
    let durability = if program.flushed {
        Durability::EveryWrite
    } else {
        Durability::Buffered { interval: Duration::from_millis(10) }
    };
    let log = Arc::new(Log::default());
    let fatal = |e: exuvia::Error| format!("a step that has to succeed: {e}");
    let store = host.open(durability).map_err(fatal)?;
    let world = World::new(store, program.layout, program.second, Arc::clone(&log)).map_err(fatal)?;
    let start = world.load(program.loaded).map_err(fatal)?;
    if program.second {
        for action in [Action::Verb(Verb::Begin { to: 2 }), Action::Wait, Action::Verb(Verb::Contract)] {
            world.act("before", &action);
        }
    }
    for action in &program.before {
        world.act("before", action);
    }
    // What is done before is a history, too; it is checked with the rest.
    let world = Arc::new(world);
    let image = Arc::new(Mutex::new(None));
    let mut threads: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for (who, actions) in &program.threads {
        let (world, who, actions) = (Arc::clone(&world), who.clone(), actions.clone());
        threads.push(Box::new(move || actions.iter().for_each(|action| world.act(&who, action))));
    }
    if let Some(engine) = host.recording().filter(|_| program.theme == Theme::Crash) {
        threads.push(crash::<H>(engine, &image, &log, rng));
    }
    host.run(threads);
    let world = Arc::into_inner(world).expect("the threads are gone");
    if program.theme != Theme::Close {
        world.look("in the end");
        world.act("in the end", &Action::Wait);
        world.look("in the end");
        world.verify("in the end");
        world.act("in the end", &Action::Close);
    }
    drop(world);

    // What another process finds.
    let store = host.open(durability).map_err(fatal)?;
    let again = World::reopened(store, program.layout, Arc::clone(&log)).map_err(fatal)?;
    again.look("reopened");
    again.act("reopened", &Action::Wait);
    again.look("reopened");
    again.verify("reopened");
    drop(again);
    judge(&log, &start, &log.events())?;

    let image = image.lock().expect("no panic in here").take();
    match image {
        Some(image) => after_the_crash(program, image, &log, &start),
        None => Ok(()),
    }
}

/// Takes an image at some moment.
fn crash<H: Host>(
    engine: &MemoryEngine,
    image: &Arc<Mutex<Option<Image>>>,
    log: &Arc<Log>,
    rng: &mut Rng,
) -> Box<dyn FnOnce() + Send> {
    let (image, engine, log) = (Arc::clone(image), engine.clone(), Arc::clone(log));
    let (wait, mut rng) = (rng.below(400), rng.clone());
    Box::new(move || {
        for _ in 0..wait {
            H::give_turn();
        }
        let mode = rng.below(3);
        let prefix = rng.below(1 + engine.unflushed());
        // What had returned by now was flushed before that.
        let at = log.now();
        let taken = engine.crash_image(|number| match mode {
            0 => true,
            1 => number < prefix,
            _ => rng.chance(2),
        });
        *image.lock().expect("no panic in here") = Some(Image { at, ends: log.now(), engine: taken });
    })
}

/// Of the history until the crash, what had returned is there, and what was under way is there or not.
fn after_the_crash(
    program: &Program,
    image: Image,
    log: &Arc<Log>,
    start: &State,
) -> std::result::Result<(), String> {
    let fatal = |e: exuvia::Error| format!("after the crash, a step that has to succeed: {e}");
    let before = log.take().into_iter().filter_map(|event| {
        // A reader may see what is not durable yet; only who wrote is told that it is.
        let counts = event.call < image.ends && !State::only_looks(&event.op);
        let known = event.ret.is_some_and(|ret| ret < image.at);
        counts.then_some(if known { event } else { Event { ret: None, ..event } })
    });
    let mut events: Vec<Event<Op>> = before.collect();
    let store = Store::options().durability(Durability::EveryWrite).open_in(Arc::new(image.engine));
    let store = store.map_err(fatal)?;
    let world = World::reopened(store, program.layout, Arc::clone(log)).map_err(fatal)?;
    world.look("after the crash");
    world.act("after the crash", &Action::Wait);
    world.look("after the crash");
    world.verify("after the crash");
    drop(world);
    events.extend(log.take());
    judge(log, start, &events).map(|_| ())
}
