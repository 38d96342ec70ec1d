// Solves Flashgate's challenges in a page. No dependency, no build.
//
//   flashgateChallenge.solve(challenge, onProgress)  -> Promise of the X-Challenge-Response header
//   flashgateChallenge.fetch(url, init, onProgress)  -> fetch that solves a challenge when asked to
//   flashgateChallenge.providers.turnstile = (challenge) => Promise of the widget's response
//
// onProgress gets {hashes, expected}. The body given to fetch must be one that can be sent twice.
(function () {
  'use strict';

  const K = new Int32Array([
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
  ]);
  const INITIAL = new Int32Array([
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
  ]);
  const w = new Int32Array(64);

  // compress takes one block of 64 bytes into the state.
  function compress(state, bytes, at) {
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let a = state[0], b = state[1], c = state[2], d = state[3];
    let e = state[4], f = state[5], g = state[6], h = state[7];
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    state[4] += e; state[5] += f; state[6] += g; state[7] += h;
  }

  // hasher hashes many texts with one beginning: its whole blocks are taken in once.
  function hasher(prefix) {
    const bytes = new TextEncoder().encode(prefix);
    const whole = bytes.length - (bytes.length % 64);
    const start = INITIAL.slice();
    for (let at = 0; at < whole; at += 64) compress(start, bytes, at);
    const rest = bytes.subarray(whole);
    const state = new Int32Array(8);
    // rest, text, the end bit and the length fill one or two blocks. text is ASCII of at most 20.
    return function (text) {
      const used = rest.length + text.length;
      const tail = new Uint8Array(used + 9 <= 64 ? 64 : 128);
      tail.set(rest);
      for (let i = 0; i < text.length; i++) tail[rest.length + i] = text.charCodeAt(i);
      tail[used] = 0x80;
      new DataView(tail.buffer).setUint32(tail.length - 4, (whole + used) * 8);
      state.set(start);
      for (let at = 0; at < tail.length; at += 64) compress(state, tail, at);
      return state;
    };
  }

  // sha256 is the hash of prefix + text in hexadecimal.
  function sha256(prefix, text) {
    return Array.from(hasher(prefix)(text), (n) => (n >>> 0).toString(16).padStart(8, '0')).join('');
  }

  function zeroBits(state) {
    let bits = 0;
    for (let i = 0; i < 8; i++) {
      bits += Math.clz32(state[i]);
      if (state[i] !== 0) break;
    }
    return bits;
  }

  const DIFFICULTY_MAX = 30;
  const SLICE_MS = 20; // so long the page does not answer; then it gets a turn
  const SLICE_HASHES = 16384; // for clocks that stand still while a script runs

  function work(challenge, onProgress) {
    return new Promise(function (resolve, reject) {
      if (challenge.algorithm !== 'SHA-256' || !(challenge.difficulty >= 1 && challenge.difficulty <= DIFFICULTY_MAX)) {
        reject(new Error('this challenge is of an unknown kind'));
        return;
      }
      const hash = hasher(challenge.token + '.');
      const expected = Math.pow(2, challenge.difficulty);
      let nonce = 0;
      function slice() {
        // A hidden page gets a turn once a second only, and nobody waits for it to answer.
        const patience = document.hidden ? 16 : 1;
        const until = performance.now() + SLICE_MS * patience;
        const last = nonce + SLICE_HASHES * patience;
        while (nonce < last && (nonce % 64 !== 0 || performance.now() < until)) {
          const text = String(nonce++);
          if (zeroBits(hash(text)) >= challenge.difficulty) {
            resolve('pow ' + challenge.token + ' ' + text);
            return;
          }
        }
        if (nonce > expected * 64) {
          reject(new Error('no solution found'));
          return;
        }
        if (onProgress) onProgress({ hashes: nonce, expected: expected });
        setTimeout(slice, 0);
      }
      slice();
    });
  }

  const providers = {};

  // solve resolves to what the header X-Challenge-Response must be.
  async function solve(challenge, onProgress) {
    if (challenge.provider === 'pow') return work(challenge, onProgress);
    const ask = providers[challenge.provider];
    if (!ask) throw new Error('this page cannot show a challenge of ' + challenge.provider);
    return challenge.provider + ' ' + (await ask(challenge));
  }

  // A clearance is kept for its sale until the window is closed.
  const kept = {};
  const place = (sale) => 'flashgate-clearance:' + sale;

  function keep(sale, clearance) {
    kept[sale] = clearance;
    try {
      sessionStorage.setItem(place(sale), clearance);
    } catch (e) {
      // Without storage it lasts as long as the page.
    }
  }

  function clearanceOf(sale) {
    try {
      return kept[sale] || sessionStorage.getItem(place(sale)) || '';
    } catch (e) {
      return kept[sale] || '';
    }
  }

  function saleOf(init) {
    try {
      return String(JSON.parse(init.body).sale || '');
    } catch (e) {
      return '';
    }
  }

  async function send(url, init, sale, answer) {
    const headers = new Headers(init.headers);
    const clearance = clearanceOf(sale);
    if (clearance) headers.set('X-Challenge-Clearance', clearance);
    if (answer) headers.set('X-Challenge-Response', answer);
    const response = await fetch(url, Object.assign({}, init, { headers: headers }));
    const given = response.headers.get('X-Challenge-Clearance');
    if (given) keep(sale, given);
    return response;
  }

  async function challengeIn(response) {
    if (response.status !== 403) return null;
    try {
      const problem = await response.clone().json();
      return (problem.code === 'challenge-required' && problem.challenge) || null;
    } catch (e) {
      return null;
    }
  }

  // fetchWithChallenge repeats a request once with the challenge solved; once more when a provider
  // turned out to be away and work is asked in its place.
  async function fetchWithChallenge(url, init, onProgress) {
    init = init || {};
    const sale = saleOf(init);
    let response = await send(url, init, sale, '');
    let challenge = await challengeIn(response);
    if (!challenge) return response;
    response = await send(url, init, sale, await solve(challenge, onProgress));
    if (challenge.provider === 'pow') return response;
    challenge = await challengeIn(response);
    if (!challenge || challenge.provider !== 'pow') return response;
    return send(url, init, sale, await solve(challenge, onProgress));
  }

  window.flashgateChallenge = { solve: solve, fetch: fetchWithChallenge, providers: providers, sha256: sha256 };
})();
