// Package uplot holds uPlot 1.6.32, the library that draws the charts of pages, as it is published. Its licence lies beside it.
package uplot

import _ "embed" // the files are variables

// Script is the library; it defines uPlot.
//
//go:embed uPlot.iife.min.js
var Script string

// Style is what the library needs of CSS.
//
//go:embed uPlot.min.css
var Style string
