package box

import (
	"strconv"
	"time"

	"allotment/api"
	"allotment/portal/web"
)

// graphView is a graph with its words.
type graphView struct {
	Graph
	Key   string // of its title's message
	About string // for who does not see it
}

// resourcesView is what the page of resources shows.
type resourcesView struct {
	Now     api.Resources
	Used    int64 // memory
	Modules []moduleView
	Graphs  []graphView
	Span    string // day or week
}

func (p *Pages) resources(r *web.Request) error {
	res, err := r.Box.Resources(ctx(r))
	if err != nil {
		return problem(err)
	}
	modules, _, err := look(r)
	if err != nil {
		return err
	}
	v := resourcesView{Now: res, Used: res.Memory - res.Available, Modules: modules, Span: "day"}
	span := 24 * time.Hour
	if r.Query("span") == "week" {
		v.Span, span = "week", keepSamples
	}
	from := r.Now.Add(-span)
	samples, err := p.history.Since(from)
	if err != nil {
		return err
	}
	size := func(n int) string { return web.Bytes(r.Language, int64(n)<<20) }
	share := func(n int) string { return strconv.Itoa(n) + "\u00a0%" }
	draw := func(key string, words func(int) string, top int, value func(Sample) int) {
		g := graphView{Graph: NewGraph(samples, from, r.Now, top, value), Key: "box.resources." + key}
		g.About = r.T("box.resources.about", "low", words(g.Low), "high", words(g.High), "now", words(g.Now))
		v.Graphs = append(v.Graphs, g)
	}
	draw("memory", size, mib(res.Memory), func(s Sample) int { return s.Memory })
	draw("cpu", share, 100, func(s Sample) int { return s.CPU })
	draw("disk", size, mib(res.Disk), func(s Sample) int { return s.Disk })
	return r.Render("resources", v)
}
