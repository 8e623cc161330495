package analysis

import "slices"

// waitName is the annotation that a worker puts around the time in which it has nothing to step.
const waitName = "stage.wait"

// Flame is a call tree for pictures: one name below another is called by it.
type Flame struct {
	Name     string   `json:"name"`
	Category string   `json:"category,omitempty"`
	Calls    int64    `json:"calls,omitempty"`
	TotalNS  int64    `json:"total_ns"`
	SelfNS   int64    `json:"self_ns,omitempty"`
	Children []*Flame `json:"children,omitempty"`
}

// Flame returns the call trees of all workers, or of those of one stage, under a common root; stage -1 is all. What a
// worker's GPU did stands beside what its threads did: the two go on at the same time.
func (s *Session) Flame(stage int) *Flame {
	root := &Flame{Name: "session " + s.ID}
	for _, w := range s.Workers {
		if stage >= 0 && w.Stage != stage {
			continue
		}
		f := flameOf(w.Calls)
		f.Name = w.Worker
		f.TotalNS = 0
		f.Children = slices.DeleteFunc(f.Children, func(c *Flame) bool { return c.Name == waitName }) // nothing was done in it
		for _, c := range f.Children {
			f.TotalNS += c.TotalNS
		}
		root.TotalNS += f.TotalNS
		root.Children = append(root.Children, f)
		if len(w.DeviceOps) > 0 {
			device := deviceFlame(w)
			root.TotalNS += device.TotalNS
			root.Children = append(root.Children, device)
		}
	}
	return root
}

func deviceFlame(w *Worker) *Flame {
	f := &Flame{Name: w.Worker + " on the GPU", TotalNS: w.DeviceNS}
	for _, op := range w.DeviceOps {
		f.Children = append(f.Children, &Flame{Name: op.Name, Category: op.Category, Calls: op.Calls, TotalNS: op.TotalNS, SelfNS: op.SelfNS})
	}
	return f
}

func flameOf(n *Node) *Flame {
	f := &Flame{Name: n.Name, Category: n.Category(), Calls: n.Calls, TotalNS: n.TotalNS, SelfNS: n.SelfNS}
	for _, c := range n.Children() {
		f.Children = append(f.Children, flameOf(c))
	}
	return f
}

// Walk visits the tree from the root, callers first, with the names on the way to each node.
func (f *Flame) Walk(visit func(path []string, f *Flame) error) error {
	return f.walk(nil, visit)
}

func (f *Flame) walk(path []string, visit func([]string, *Flame) error) error {
	path = append(path, f.Name)
	if err := visit(path, f); err != nil {
		return err
	}
	for _, c := range f.Children {
		if err := c.walk(path, visit); err != nil {
			return err
		}
	}
	return nil
}
