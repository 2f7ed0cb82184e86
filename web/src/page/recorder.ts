// Record speech: the browser's own codec while it runs, decoded and written as 16 kHz WAV when it ends.

import { encodeWav } from "./wav";

export const RATE = 16_000; // Hz
export const LONGEST = 30; // seconds

export interface Recording {
  /** Level of the last moment, 0..1. */
  level(): number;
  /** The recording as WAV. */
  stop(): Promise<Blob>;
}

/** Throws NotAllowedError where the user or the system says no, NotFoundError where there is no microphone. */
export async function record(): Promise<Recording> {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const audio = new AudioContext();
  const analyser = audio.createAnalyser();
  audio.createMediaStreamSource(stream).connect(analyser);
  const wave = new Float32Array(analyser.fftSize);
  const recorder = new MediaRecorder(stream);
  const parts: Blob[] = [];
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.start();
  return {
    level() {
      analyser.getFloatTimeDomainData(wave);
      return Math.min(1, 1.4 * Math.sqrt(wave.reduce((sum, value) => sum + value * value, 0) / wave.length));
    },
    stop() {
      return new Promise((resolve, reject) => {
        recorder.addEventListener("stop", () => {
          for (const track of stream.getTracks()) track.stop();
          audio.close().then(async () => resolve(await asWav(new Blob(parts)))).catch(reject);
        });
        recorder.stop();
      });
    },
  };
}

async function asWav(recorded: Blob): Promise<Blob> {
  const context = new OfflineAudioContext(1, RATE * LONGEST, RATE);
  const decoded = await context.decodeAudioData(await recorded.arrayBuffer());
  const mono = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    const data = decoded.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) mono[i]! += data[i]! / decoded.numberOfChannels;
  }
  return encodeWav(mono, RATE);
}
