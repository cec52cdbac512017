//! One writer: changes come from everywhere, and those that wait together become durable together, by one commit.

use std::future::Future;
use std::pin::Pin;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::sync::{mpsc, oneshot};

use super::{Result, StoreError};

/// What a change needs a connection for.
pub(super) type Change<'c, T> =
    Pin<Box<dyn Future<Output = std::result::Result<T, sqlx::Error>> + Send + 'c>>;

/// Tells whoever asked, once it is known whether the commit succeeded.
type Tell = Box<dyn FnOnce(std::result::Result<(), String>) + Send>;
type Make = Box<
    dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Pin<Box<dyn Future<Output = Told> + Send + 'c>> + Send,
>;

/// A change that waits.
struct Command {
    make: Make,
    around: Around,
}

/// What is to be around a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    /// A transaction.
    Transaction,
    /// Nothing, where it comes alone: only one of its statements changes anything, and that is whole or not at all by itself.
    NothingAlone,
    /// Never a transaction: it comes once those that wait with it are durable.
    Nothing,
}

/// How a change went before the commit.
struct Told {
    succeeded: bool,
    tell: Tell,
}

/// Changes that share a commit, at most.
const TOGETHER: usize = 256;
/// Changes that wait, at most; more wait outside.
const WAITING: usize = 4_096;

/// The one that writes. A clone is the same.
#[derive(Clone)]
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
}

impl Writer {
    pub async fn start(options: &SqliteConnectOptions) -> std::result::Result<Writer, sqlx::Error> {
        let connection = options.connect().await?;
        let (commands, inbox) = mpsc::channel(WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let (runtime, options) = (runtime.map_err(sqlx::Error::Io)?, options.clone());
        // A thread of its own: each statement waits for the connection's thread, and two that wait for one another are quick at it.
        let work = move || runtime.block_on(write(connection, options, inbox));
        std::thread::Builder::new().name("store".to_owned()).spawn(work).map_err(sqlx::Error::Io)?;
        Ok(Writer { commands })
    }

    /// Makes a change, whole or not at all. What it gives comes back once it is durable.
    pub async fn write<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Change<'c, T> + Send + 'static,
    {
        self.send(change, Around::Transaction).await
    }

    /// [`Writer::write`], of a change of which only one statement changes anything: alone it needs no transaction around it.
    pub async fn write_one<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Change<'c, T> + Send + 'static,
    {
        self.send(change, Around::NothingAlone).await
    }

    /// Does what must not be within a transaction, once every change that was asked for before is durable.
    pub async fn after<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Change<'c, T> + Send + 'static,
    {
        self.send(work, Around::Nothing).await
    }

    async fn send<T, F>(&self, change: F, around: Around) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Change<'c, T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let make: Make = Box::new(move |connection| {
            Box::pin(async move {
                let outcome = change(connection).await;
                let succeeded = outcome.is_ok();
                let tell: Tell = Box::new(move |commit| {
                    let outcome = match (outcome, commit) {
                        (Ok(value), Ok(())) => Ok(value),
                        (Err(error), _) => Err(error.into()),
                        (_, Err(reason)) => Err(StoreError::Failed(reason)),
                    };
                    // Whoever asked may have gone: the change is made all the same.
                    let _ = answer.send(outcome);
                });
                Told { succeeded, tell }
            })
        });
        let closed = || StoreError::Failed("it is closed".into());
        self.commands.send(Command { make, around }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn write(
    mut connection: SqliteConnection,
    options: SqliteConnectOptions,
    mut inbox: mpsc::Receiver<Command>,
) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while inbox.recv_many(&mut batch, TOGETHER).await > 0 {
        let mut told = Vec::with_capacity(batch.len());
        let (after, changes): (Vec<Command>, Vec<Command>) =
            batch.drain(..).partition(|command| command.around == Around::Nothing);
        let committed = match changes.is_empty() {
            true => Ok(()),
            false => commit(&mut connection, changes.into_iter(), &mut told).await,
        };
        let reason = committed.map_err(|error| error.to_string());
        if let Err(reason) = &reason {
            tracing::error!(%reason, "the store cannot be written");
            // What a failed transaction left on the connection does not matter on a new one.
            if let Ok(fresh) = options.connect().await {
                connection = fresh;
            }
        }
        told.into_iter().for_each(|Told { tell, .. }| tell(reason.clone()));
        for Command { make, .. } in after {
            let Told { tell, .. } = make(&mut connection).await;
            tell(Ok(()));
        }
    }
    // In WAL, closing writes everything into the one file.
    let _ = connection.close().await;
}

async fn commit(
    connection: &mut SqliteConnection,
    batch: impl ExactSizeIterator<Item = Command>,
    told: &mut Vec<Told>,
) -> std::result::Result<(), sqlx::Error> {
    let alone = batch.len() == 1;
    let mut batch = batch.peekable();
    if alone
        && let Some(Command { make, .. }) = batch.next_if(|command| command.around == Around::NothingAlone)
    {
        told.push(make(connection).await);
        return Ok(());
    }
    let began = connection.execute("BEGIN IMMEDIATE").await;
    let mut open = false;
    for command in batch {
        if began.is_err() {
            told.push(Told { succeeded: false, tell: refused(command) });
            continue;
        }
        if alone {
            let one = (command.make)(connection).await;
            let succeeded = one.succeeded;
            told.push(one);
            // What failed is undone with the whole.
            return connection.execute(if succeeded { "COMMIT" } else { "ROLLBACK" }).await.map(|_| ());
        }
        // Those before it are within the transaction alone. Both at once: each call is a way to another thread and back.
        connection.execute(if open { "RELEASE one; SAVEPOINT one" } else { "SAVEPOINT one" }).await?;
        open = true;
        let one = (command.make)(connection).await;
        if !one.succeeded {
            connection.execute("ROLLBACK TO one").await?;
        }
        told.push(one);
    }
    began?;
    // Which releases the last one's savepoint too.
    connection.execute("COMMIT").await.map(|_| ())
}

/// The answer to a change that could not be tried: dropping it closes the channel on which its answer is awaited.
fn refused(command: Command) -> Tell {
    Box::new(move |_| drop(command))
}
