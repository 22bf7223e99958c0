// The real clients for Node as their users have them: asks one question in every way and prints what each way got, as JSON.
// usage: node clients.mjs <base URL ending in /v1> <text|tools|structured|bad|turns> [part of the names of the ways to ask]
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import Anthropic from '@anthropic-ai/sdk';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';

const [url, kind, only = ''] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: url, apiKey: 'test', maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url.replace(/\/v1$/, ''), apiKey: 'test', maxRetries: 0 });
const Weather = z.object({ city: z.string(), note: z.string() });
const parameters = {
  type: 'object',
  properties: { city: { type: 'string' }, note: { type: 'string' } },
  required: ['city', 'note'],
  additionalProperties: false,
};

const bare = ({ id, sluice, _request_id, ...rest }) => JSON.parse(JSON.stringify(rest));
const extra = kind === 'bad' ? { base_url: 'http://elsewhere.invalid' } : {};
const tool = kind === 'tools';
const parsed = kind === 'structured';

const chat = {
  model: 'm',
  ...extra,
  ...(tool && { tools: [{ type: 'function', function: { name: 'look_up', parameters } }] }),
  ...(parsed && { response_format: zodResponseFormat(Weather, 'weather') }),
};
const responses = {
  model: 'm',
  ...extra,
  ...(tool && { tools: [{ type: 'function', name: 'look_up', parameters, strict: false }] }),
  ...(parsed && { text: { format: zodTextFormat(Weather, 'weather') } }),
};
const messages = {
  model: 'm',
  max_tokens: 99,
  ...extra,
  ...(tool && { tools: [{ name: 'look_up', input_schema: parameters }] }),
  ...(parsed && { output_config: { format: zodOutputFormat(Weather) } }),
};

function chatGot(completion) {
  const [{ message, finish_reason }] = completion.choices;
  const calls = (message.tool_calls ?? []).map((c) => [c.function.name, c.function.arguments]);
  return { text: message.content ?? '', end: finish_reason, calls, parsed: message.parsed, whole: bare(completion), turn: [message] };
}
function responsesGot(response) {
  const calls = response.output.filter((i) => i.type === 'function_call').map((c) => [c.name, c.arguments]);
  const end = response.incomplete_details?.reason ?? response.status;
  return { text: response.output_text, end, calls, parsed: response.output_parsed, whole: bare(response), turn: response.output };
}
function messagesGot(message) {
  const text = message.content.filter((b) => b.type === 'text').map((b) => b.text).join('');
  const calls = message.content.filter((b) => b.type === 'tool_use').map((b) => [b.name, b.input]);
  const turn = [{ role: 'assistant', content: message.content }];
  return { text, end: message.stop_reason, calls, parsed: message.parsed_output, whole: bare(message), turn };
}

const ways = {
  'openai-chat-plain': async (turns) =>
    chatGot(await openai.chat.completions[parsed ? 'parse' : 'create']({ ...chat, messages: turns })),
  'openai-chat-stream': async (turns) => chatGot(await openai.chat.completions.stream({ ...chat, messages: turns }).finalChatCompletion()),
  'openai-completions-chunks': async (turns) => {
    let text = '', end = null;
    for await (const chunk of await openai.completions.create({ model: 'm', ...extra, prompt: turns.at(-1).content, stream: true })) {
      for (const choice of chunk.choices) {
        text += choice.text;
        end = choice.finish_reason ?? end;
      }
    }
    return { text, end, calls: [], whole: [text, end], turn: [] };
  },
  'openai-responses-plain': async (turns) => responsesGot(await openai.responses[parsed ? 'parse' : 'create']({ ...responses, input: turns })),
  'openai-responses-stream': async (turns) => responsesGot(await openai.responses.stream({ ...responses, input: turns }).finalResponse()),
  'anthropic-messages-plain': async (turns) => messagesGot(await anthropic.messages[parsed ? 'parse' : 'create']({ ...messages, messages: turns })),
  'anthropic-messages-stream': async (turns) => messagesGot(await anthropic.messages.stream({ ...messages, messages: turns }).finalMessage()),
};

const user = (content) => ({ role: 'user', content });
const asked = process.env.ASKED ?? '天气怎样？';
const found = {};
for (const [name, ask] of Object.entries(ways)) {
  if (!name.includes(only)) continue;
  if ((tool || parsed || kind === 'turns') && name.includes('completions-chunks')) continue;
  try {
    found[name] = await ask([user(asked)]);
    if (kind === 'turns') {
      found[name].next = (await ask([user(asked), ...found[name].turn, user('今天天气如何？')])).text;
    }
  } catch (error) {
    // An error's class, and those it descends from.
    const kinds = [];
    for (let kind = error.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) kinds.push(kind.name);
    found[name] = { kinds, status: error.status ?? null, message: String(error.message) };
  }
}
const raw = await openai.chat.completions.create({ model: 'm', messages: [user('你好')] }).withResponse().catch(() => null);
found.header = raw && [raw.response.headers.get('x-sluice-decision'), raw.data.id];
console.log(JSON.stringify(found));
