// A coordination program in Node, written from the protocol: it knows nothing of the mount.
const fs = require('node:fs');
const { execFileSync } = require('node:child_process');

// The objects as signed lines, newline after each.
exports.sign = (agent, ...objects) =>
  execFileSync('baton', ['sign', '--as', agent], {
    input: objects.map((o) => JSON.stringify(o) + '\n').join(''),
    encoding: 'utf8',
  });

exports.message = (body) => ({ type: 'feedback', subject: 'test', body });

// One line through a descriptor: open for append, one write, fsync, close.
exports.append = (path, line) => {
  const fd = fs.openSync(path, 'a');
  try {
    fs.writeSync(fd, line);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
};
