// Several files as one ZIP, stored without compression (pictures are compressed already). APPNOTE 6.3, no ZIP64.

export interface Member {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let value = n;
  for (let k = 0; k < 8; k++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

export function crc32(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255]! ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

export function zip(members: readonly Member[]): Blob {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const member of members) {
    const name = new TextEncoder().encode(member.name);
    const header = entry(name, member.bytes, null);
    directory.push(entry(name, member.bytes, offset));
    parts.push(header, member.bytes);
    offset += header.length + member.bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, members.length, true);
  end.setUint16(10, members.length, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  const all = [...parts, ...directory, new Uint8Array(end.buffer)];
  return new Blob(all as BlobPart[], { type: "application/zip" });
}

/** A local header, or with an offset the record of the central directory. */
function entry(name: Uint8Array, bytes: Uint8Array, offset: number | null): Uint8Array {
  const local = offset === null;
  const fixed = local ? 30 : 46;
  const out = new Uint8Array(fixed + name.length);
  const view = new DataView(out.buffer);
  const shift = local ? 0 : 2; // the directory's record has one more field in front
  view.setUint32(0, local ? 0x04034b50 : 0x02014b50, true);
  if (!local) view.setUint16(4, 20, true);
  view.setUint16(4 + shift, 20, true);
  view.setUint16(6 + shift, 0x0800, true); // names are UTF-8
  view.setUint16(12 + shift, 0x21, true); // 1 January 1980: no clock in the file
  view.setUint32(14 + shift, crc32(bytes), true);
  view.setUint32(18 + shift, bytes.length, true);
  view.setUint32(22 + shift, bytes.length, true);
  view.setUint16(26 + shift, name.length, true);
  if (offset !== null) view.setUint32(42, offset, true);
  out.set(name, fixed);
  return out;
}
