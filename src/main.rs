//! `sluice`: arguments, settings, start, wait for a signal, drain.

use std::io::Write;
use std::process::ExitCode;

use axum::Router;
use sluice::cli::{self, Cli, Command, Failure};
use sluice::gateway::Gateway;
use sluice::settings::{LogFormat, Settings};
use sluice::shutdown::{self, Stop};
use sluice::{demo, http, telemetry};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(done) => return done,
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Without standard error there is nobody to tell.
            writeln!(std::io::stderr(), "sluice: {failure}").unwrap_or_default();
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let settings = cli.settings()?;
    let fault = |error: std::io::Error| Failure::Fault(error.to_string());
    http::choose_cryptography();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("doors")
        .on_thread_start(step_back)
        .enable_all()
        .build()
        .map_err(fault)?;
    match cli.command.unwrap_or(Command::Serve) {
        command @ (Command::Serve | Command::Demo) => {
            let engine = tokio::runtime::Builder::new_multi_thread()
                .thread_name("engine")
                .enable_all()
                .build()
                .map_err(fault)?;
            let with_demo = matches!(command, Command::Demo);
            let done = runtime.block_on(serve(settings, engine.handle(), with_demo));
            // What still runs is not waited for: the drain has.
            engine.shutdown_background();
            runtime.shutdown_background();
            done
        }
        Command::Check { explain, connect } => {
            cli::check(&settings, explain.as_deref())?;
            if connect { runtime.block_on(cli::connect(&settings)) } else { Ok(()) }
        }
        Command::Publish { channel, json, url } => {
            runtime.block_on(cli::publish(&settings, &channel, &json, url.as_deref()))
        }
    }
}

/// Lets the threads of the engine go first: when requests take all processors, events do not wait.
fn step_back() {
    const BACK: i32 = 5;
    // Where the system does not allow it, all threads are alike.
    rustix::process::nice(BACK).map(drop).unwrap_or_default();
}

async fn serve(settings: Settings, engine: &Handle, with_demo: bool) -> Result<(), Failure> {
    let as_json = settings.log.format == LogFormat::Json;
    telemetry::init(as_json, &settings.log.level).map_err(Failure::Usage)?;
    let bind = settings.server.bind;
    let listener =
        TcpListener::bind(bind).await.map_err(|e| Failure::Bind(format!("{bind}: {e}")))?;
    let (settings, pages) = if with_demo {
        let address = listener.local_addr().map_err(|e| Failure::Fault(e.to_string()))?;
        (demo::settings(settings, address), demo::pages())
    } else {
        (settings, Router::new())
    };
    let stop = Stop::with_engine(engine.clone());
    let gateway = Gateway::start_with(stop, settings, listener, pages)
        .map_err(|e| Failure::Usage(e.to_string()))?;
    if with_demo {
        demo::start(&gateway);
    }
    let signal = tokio::select! {
        signal = shutdown::signalled() => signal.map_err(|e| Failure::Fault(e.to_string()))?,
        // Whoever watches over the process starts another: this one would only look alive.
        task = gateway.stop().failed() => {
            return Err(Failure::Fault(format!("{task} has ended, which must not be")));
        }
    };
    tracing::info!(signal, "stopping");
    tokio::select! {
        all_left = gateway.drain() => tracing::info!(all_left, "stopped"),
        // Somebody is in a hurry.
        _ = shutdown::signalled() => tracing::warn!("stopped without waiting"),
    }
    Ok(())
}
