//! Nanoseconds for one wake and poll of a task that yields, alone on its runtime. They are of CPU time: what other processes
//! take of a shared CPU is not the stamps' cost.

use crate::{Options, Result, median};
use regauge_runtimes::settings::Stack;
use regauge_runtimes::stamps::usage::UsageReader;
use regauge_runtimes::stamps::{self, Role, timed};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

const YIELDS: u32 = 300_000;

#[derive(Clone, Copy)]
enum Variant {
    Bare,
    Off,
    On,
}

pub fn run(options: &Options) -> Result<()> {
    println!(
        "ns of CPU time per wake and poll, {YIELDS} yields of one task, medians of {} rounds, interleaved; in brackets the fastest",
        options.rounds
    );
    println!("{:<14} {:>16} {:>16} {:>16} {:>20}", "runtime", "bare", "stamps off", "stamps on", "on − bare (max 150)");
    for &stack in &options.stacks {
        let mut times: [Vec<f64>; 3] = Default::default();
        for round in 0..options.rounds {
            // The order turns, so that no variant always comes first.
            for i in (0..3).map(|i| (i + round) % 3) {
                let variant = [Variant::Bare, Variant::Off, Variant::On][i];
                times[i].push(measure(stack, variant)?);
            }
        }
        let [bare, off, on] = times.each_ref().map(|t| (median(t), t.iter().copied().fold(f64::INFINITY, f64::min)));
        let cell = |(median, fastest): (f64, f64)| format!("{median:.0} ({fastest:.0})");
        let more = (on.0 - bare.0, on.1 - bare.1);
        println!("{:<14} {:>16} {:>16} {:>16} {:>20}", stack.name(), cell(bare), cell(off), cell(on), cell(more));
    }
    Ok(())
}

fn measure(stack: Stack, variant: Variant) -> Result<f64> {
    if let Variant::On = variant {
        stamps::start();
    }
    let (took, ended) = std::sync::mpsc::channel();
    let task = async move {
        let reader = UsageReader::of_this_thread();
        let begin = reader.read();
        for _ in 0..YIELDS {
            yield_now().await;
        }
        let _main_waits = took.send(reader.read().cpu_ns - begin.cpu_ns);
    };
    let task: Pin<Box<dyn Future<Output = ()> + Send>> = match variant {
        Variant::Bare => Box::pin(task),
        Variant::Off | Variant::On => Box::pin(timed(Role::Effect, task)),
    };
    match stack {
        Stack::TokioShared => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
            runtime.block_on(async move { tokio::spawn(task).await })?;
        }
        Stack::TokioPinned => {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            runtime.block_on(async move { tokio::spawn(task).await })?;
        }
        Stack::Monoio => {
            let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?;
            runtime.block_on(async move { monoio::spawn(task).await });
        }
        Stack::Compio => {
            let runtime = compio::runtime::Runtime::new()?;
            runtime.block_on(async move { compio::runtime::spawn(task).await }).map_err(|_| "the task panicked")?;
        }
    }
    stamps::stop();
    // Away with the rows, so that every round begins with empty buffers.
    let nowhere = std::env::temp_dir().join(format!("bench-stamps-{}.parquet", std::process::id()));
    stamps::write(&nowhere)?;
    std::fs::remove_file(&nowhere)?;
    Ok(ended.recv()? as f64 / f64::from(YIELDS))
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
