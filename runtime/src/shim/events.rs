//! Events for containerd, in the order in which they happened, sent by a thread of their own: no call waits for containerd, and
//! a containerd that restarts is waited for.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use containerd_shim_protos::EventsClient;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{MessageField, MessageFull};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::{Client, context};

use crate::failure::{Failure, Result};

/// How long containerd may take for one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long containerd may be away before its events are dropped: it asks for states when it is back.
const AWAY: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes events.
#[derive(Clone)]
pub struct Events {
    queue: Sender<Envelope>,
    namespace: String,
}

impl Events {
    /// Starts the thread that sends to `address`.
    ///
    /// # Errors
    /// Out of threads.
    pub fn start(address: &str, namespace: &str) -> Result<Self> {
        let (queue, waiting) = channel();
        let (address, space) = (address.to_owned(), namespace.to_owned());
        let body = move || Publisher { address, namespace: space, client: None }.publish_all(&waiting);
        thread::Builder::new()
            .name("events".into())
            .spawn(body)
            .map_err(|e| Failure::runtime(format!("starting the publisher: {e}")))?;
        Ok(Events { queue, namespace: namespace.to_owned() })
    }

    /// Puts an event behind those before it.
    pub fn send<M: MessageFull>(&self, topic: &str, event: &M) {
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(any(event)),
            ..Envelope::default()
        };
        let _ = self.queue.send(envelope);
    }
}

/// A time in containerd's form.
#[must_use]
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut stamp = Timestamp::new();
    stamp.seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    stamp.nanos = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    stamp
}

/// A message with its name, as containerd has it: without a host before it.
#[must_use]
pub fn any<M: MessageFull>(message: &M) -> Any {
    let value = message.write_to_bytes().unwrap_or_default();
    Any { type_url: M::descriptor().full_name().to_owned(), value, ..Any::default() }
}

struct Publisher {
    address: String,
    namespace: String,
    client: Option<EventsClient>,
}

impl Publisher {
    fn publish_all(mut self, waiting: &Receiver<Envelope>) {
        while let Ok(envelope) = waiting.recv() {
            let topic = envelope.topic.clone();
            let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
            let until = Instant::now() + AWAY;
            while let Err(why) = self.forward(&request) {
                self.client = None;
                if Instant::now() >= until {
                    log::warn!("event {topic} was dropped: {why}");
                    break;
                }
                thread::park_timeout(PAUSE);
            }
        }
    }

    fn forward(&mut self, request: &ForwardRequest) -> std::result::Result<(), String> {
        let client = match self.client.take() {
            Some(client) => client,
            None => EventsClient::new(connect(&self.address)?),
        };
        let mut cx = context::with_duration(PATIENCE);
        cx.add("containerd-namespace-ttrpc".into(), self.namespace.clone());
        client.forward(cx, request).map_err(|e| e.to_string())?;
        self.client = Some(client);
        Ok(())
    }
}

fn connect(address: &str) -> std::result::Result<Client, String> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    Client::connect(&format!("unix://{path}")).map_err(|e| format!("{path}: {e}"))
}
