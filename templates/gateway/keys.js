// The hash of the key that a request presents, run by njs (QuickJS engine). Written by stoker; the next deploy overwrites
// changes made here.

import crypto from 'crypto';

// `Authorization: Bearer KEY` as OpenAI's clients send it, else `x-api-key: KEY`.
function presented(r) {
    const bearer = /^Bearer +([^ ]+) *$/i.exec(r.headersIn['Authorization'] || '');
    return bearer ? bearer[1] : r.headersIn['X-Api-Key'];
}

// SHA-256 in hexadecimal; '-' without a key.
function hash(r) {
    const key = presented(r);
    return key ? crypto.createHash('sha256').update(key).digest('hex') : '-';
}

export default { hash };
