import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

// One HTML file without a head in it: egs.export_web puts the head in. Workers are inlined (`?worker&inline`), because
// a page opened from disk may not load other files.
export default defineConfig({
  base: "./",
  plugins: [viteSingleFile()],
  worker: { format: "iife" },
  build: { target: "es2022", outDir: "dist", assetsInlineLimit: 100_000_000, cssCodeSplit: false },
});
