package config

// nearest returns the known word that key most likely misspells, or "" if none is close.
func nearest(key string, known []string) string {
	best, bestDistance := "", 3
	for _, word := range known {
		if d := distance(key, word); d < bestDistance && d < len(word) {
			best, bestDistance = word, d
		}
	}
	return best
}

// distance counts the single-byte edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
