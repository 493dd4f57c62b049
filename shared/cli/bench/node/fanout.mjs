// What most people run today: a loop on the AWS SDK for JavaScript v3 that posts one message to many connections.
//
// usage: node fanout.mjs <endpoint> <posts a round> <posts on their way at once>
// The first line that it gets is the post whose body it sends, as JSON; after that every line is a round.

import { createInterface } from "node:readline";
import { Agent } from "node:http";
import { ApiGatewayManagementApiClient, PostToConnectionCommand } from "@aws-sdk/client-apigatewaymanagementapi";

const [endpoint, posts, parallel] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];

// The SDK's own limit is 50 sockets, fewer than there are posts on their way.
const requestHandler = { httpAgent: new Agent({ keepAlive: true, maxSockets: parallel }) };
const client = new ApiGatewayManagementApiClient({ endpoint, requestHandler });

async function round(data) {
  let next = 0;
  const share = async () => {
    while (next < posts) {
      const ConnectionId = `B${String(next++).padStart(14, "0")}=`;
      await client.send(new PostToConnectionCommand({ ConnectionId, Data: data }));
    }
  };
  await Promise.all(Array.from({ length: parallel }, share));
}

let data;
for await (const line of createInterface({ input: process.stdin })) {
  if (data === undefined) {
    data = Buffer.from(JSON.parse(line).body);
    console.log("ready");
  } else {
    await round(data);
    console.log("done");
  }
}
