package api

import "encoding/json"

// Document is what GET /openapi.json answers, whatever the keys.
func (s *Server) Document() ([]byte, error) { return json.Marshal(s.document()) }
