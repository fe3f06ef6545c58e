import { chromium } from "playwright-core";
const [out, path, width="1440", scheme="light", js=""] = process.argv.slice(2);
const b = await chromium.launch({ executablePath:"/usr/bin/chromium", args:["--no-sandbox","--disable-gpu","--disable-quic","--no-first-run","--disable-background-networking","--disable-component-update","--disable-sync"]});
const p = await b.newPage({ viewport:{width:+width,height:width==="360"?740:900}, colorScheme:scheme });
p.on("console", m=>{ if(m.type()!=="debug") console.log("console", m.type(), m.text())}); p.on("pageerror", e=>console.log("ERR", e.message));
await p.goto((process.env.URL_ ?? "http://127.0.0.1:25173")+path); await p.waitForLoadState("networkidle"); await p.waitForTimeout(400);
if (js) { await eval(`(async()=>{${js}})()`); await p.waitForTimeout(500); }
await p.screenshot({path:`/work/tmp/t/web/shots/${out}.png`}); await b.close();
