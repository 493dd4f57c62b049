//! Lines to paste into other clients, so that the first message of one's own is a minute away.

use super::CHANNEL;
use carillon_core::channel::Channel;
use carillon_core::mqtt::MqttPrefix;
use carillon_local::stack::Ready;
use serde_json::json;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The lines. They hold the token: the stack is on this machine and its token is made for it.
pub(super) fn text(ready: &Ready, bus: &str, ready_file: &Path) -> String {
    let token = ready.token.as_deref().unwrap_or_default();
    let mut text =
        String::from("\nThe subscribers stay. Paste any of these into another terminal; what comes is printed here too.\n");
    if let Some(url) = &ready.websocket {
        let frame = json!({"action": "subscribe", "ref": "1", "channel": CHANNEL});
        text.push_str(&format!("\n  npx wscat -c {}\n  {frame}\n", quote(&format!("{url}?token={token}"))));
    }
    let mqtt = Mqtt::of(ready);
    if let Some(mqtt) = &mqtt {
        text.push_str(&format!("\n  {} -q 1 -t {}\n", mqtt.command("mosquitto_sub"), quote(&mqtt.out)));
    }
    if let Some(url) = &ready.stream {
        let header = quote(&bearer(token)).into_owned();
        text.push_str(&format!("\n  curl -N {} -H {header}\n", quote(&format!("{url}sse?channel={CHANNEL}"))));
    }
    if let Some(url) = &ready.publish {
        let body = json!({"channel": CHANNEL, "data": "hello from curl"});
        text.push_str(&format!(
            "\n  curl -X POST {url}publish -H {} -H 'content-type: application/json' -d {}\n",
            quote(&bearer(token)),
            quote(&body.to_string())
        ));
    }
    let detail = json!({"channel": CHANNEL, "data": "hello from the aws command"}).to_string();
    let entries = json!([{"EventBusName": bus, "Source": "my.application", "DetailType": "hello", "Detail": detail}]);
    text.push_str(&format!(
        "\n  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws events put-events --endpoint-url {} --region {} --entries {}\n",
        ready.aws,
        ready.region,
        quote(&entries.to_string())
    ));
    if let Some(mqtt) = &mqtt {
        let message = |whose: &str| quote(&json!(format!("hello from {whose}")).to_string()).into_owned();
        let topic = quote(&mqtt.device);
        text.push_str(&format!("\n  {} -q 1 -t {topic} -m {}\n", mqtt.command("mosquitto_pub"), message("a device")));
        // From standard input, since version 1 of the command takes a payload as it is and version 2 as base64.
        text.push_str(&format!(
            "\n  printf %s {} | AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws iot-data publish --endpoint-url {} --region {} \
             --qos 1 --topic {topic} --payload fileb:///dev/stdin\n",
            message("a device behind the aws command"),
            ready.aws,
            ready.region,
        ));
    }
    let carillon = format!("{} --ready-file {}", this_program(), quote(&absolute(ready_file)));
    text.push_str(&format!(
        "\n  {carillon} publish {CHANNEL} --text 'hello from carillon'\n  {carillon} subscribe {CHANNEL}{}\n\nCtrl-C ends it.\n",
        if ready.stream.is_some() { " --via sse" } else { "" }
    ));
    text + "\n" + &super::header()
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

/// What a line for an MQTT client is made of.
struct Mqtt<'text> {
    host: &'text str,
    port: &'text str,
    token: &'text str,
    /// The topic on which the channel's messages come.
    out: String,
    /// The topic on which a device publishes to the channel.
    device: String,
}

impl<'text> Mqtt<'text> {
    /// None where the stack has no broker.
    fn of(ready: &'text Ready) -> Option<Self> {
        let (host, port) = ready.mqtt.as_deref()?.strip_prefix("mqtt://")?.rsplit_once(':')?;
        let prefix = MqttPrefix::parse(ready.mqtt_prefix.as_deref()?).ok()?;
        let channel = Channel::parse(CHANNEL).ok()?;
        let token = ready.token.as_deref().unwrap_or_default();
        Some(Self { host, port, token, out: prefix.topic(&channel), device: prefix.device_topic(&channel) })
    }

    fn command(&self, program: &str) -> String {
        let Self { host, port, token, .. } = self;
        format!("{program} -V mqttv5 -h {host} -p {port} -u token -P {}", quote(token))
    }
}

/// This program as another terminal finds it: by its path, since cargo puts it where no shell looks.
fn this_program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("carillon"));
    quote(&path.to_string_lossy()).into_owned()
}

/// The path from another folder.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// The text as one word of a POSIX shell.
fn quote(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_one_word() {
        assert_eq!(quote(r#"{"a": "it's"}"#), r#"'{"a": "it'\''s"}'"#);
        assert_eq!(quote("/home/a b/carillon"), "'/home/a b/carillon'");
        assert_eq!((&*quote("/opt/carillon"), &*quote("")), ("/opt/carillon", "''"));
    }
}
