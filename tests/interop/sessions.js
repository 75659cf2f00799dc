// Sessions as express and connect-redis keep them in Redis, with the arguments and answers of sessions.py:
//
//     sessions.js write express N    logs N clients in and prints the cookies that they hold
//     sessions.js alive express      reads that from standard input and prints how many are still logged in
//
// REDIS_URL names the server.
"use strict";

const express = require("express");
const session = require("express-session");
const { RedisStore } = require("connect-redis");
const { createClient } = require("redis");

async function serve(client) {
  const app = express();
  app.use(
    session({
      store: new RedisStore({ client }),
      secret: "only signs what this test throws away",
      resave: false,
      saveUninitialized: false,
    }),
  );
  app.get("/login", (request, response) => {
    // What passport keeps of a user.
    request.session.passport = { user: "ada" };
    response.send("in");
  });
  app.get("/", (request, response) => response.send(request.session.passport?.user ?? "nobody"));
  return new Promise((resolve) => {
    const server = app.listen(0, "127.0.0.1", () => resolve(server));
  });
}

async function main() {
  const [command, , count] = process.argv.slice(2);
  const client = createClient({ url: process.env.REDIS_URL });
  await client.connect();
  const server = await serve(client);
  const url = `http://127.0.0.1:${server.address().port}`;
  if (command === "write") {
    const held = [];
    for (let number = 0; number < Number(count); number += 1) {
      const answer = await fetch(`${url}/login`);
      held.push(answer.headers.get("set-cookie").split(";")[0]);
    }
    console.log(JSON.stringify(held));
  } else {
    let input = "";
    for await (const part of process.stdin) input += part;
    let alive = 0;
    for (const cookie of JSON.parse(input)) {
      const answer = await fetch(url, { headers: { cookie } });
      alive += (await answer.text()) === "ada" ? 1 : 0;
    }
    console.log(alive);
  }
  server.closeAllConnections();
  server.close();
  await client.quit();
}

main();
